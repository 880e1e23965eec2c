//! A network namespace that lives as long as its value, and running things inside it.

use std::fs::{self, File};
use std::future::Future;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 keeps named namespaces.
const NAMED: &str = "/run/netns";

/// Every name of ours starts so, followed by the number of the process that made it.
const PREFIX: &str = "pierhead-";

/// A named network namespace; gone when dropped, unless somebody else made it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    ours: bool,
}

impl Netns {
    /// Makes a namespace that nobody else uses, with its loopback up. `role` ends its name.
    pub fn unique(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("{PREFIX}{}-{number}-{role}", std::process::id()))
    }

    /// Makes a namespace of this very name.
    pub fn named(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        ip(None, &format!("netns add {name}"))?;
        let made = Self {
            name: name.to_owned(),
            ours: true,
        };
        made.sysctl("ipv6/conf/all/accept_dad", "0")?;
        made.sysctl("ipv6/conf/default/accept_dad", "0")?;
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// The namespace of this name that somebody else made, and keeps.
    pub fn of(name: &str) -> Result<Self> {
        let found = Self {
            name: name.to_owned(),
            ours: false,
        };
        if !found.path().exists() {
            bail!("there is no network namespace {name}");
        }
        Ok(found)
    }

    /// Its name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs lines of `ip` inside it, one command per line.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip(Some(&self.name), lines)
    }

    /// Sets a value below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{path}");
        self.enter(|| fs::write(&file, value))?
            .with_context(|| format!("cannot set {file}"))
    }

    /// Runs `work` on a thread of its own inside the namespace. A socket stays in the namespace it was made in, so it may be
    /// taken outside; so does a process started here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                join(&path)?;
                Ok(work())
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a future to its end inside the namespace.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.enter(|| runtime()?.block_on(future))?
    }

    /// Starts a thread inside the namespace that outlives this call.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let (said, heard) = std::sync::mpsc::channel();
        let path = self.path();
        let handle = thread::Builder::new().name(self.name.clone()).spawn(move || {
            let joined = join(&path);
            let entered = joined.is_ok();
            // Nobody listens only when the caller is gone, and then nobody cares.
            let _ = said.send(joined);
            if entered {
                work();
            }
        })?;
        heard.recv().context("a thread ended early")??;
        Ok(handle)
    }

    fn path(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // A namespace left behind is swept by the next run.
        let _ = ip(None, &format!("netns del {}", self.name));
    }
}

/// A runtime for the current thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")
}

fn join(path: &Path) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {}: this needs root", path.display()))
}

/// Removes what runs that were killed left behind.
fn sweep() {
    let Ok(entries) = fs::read_dir(NAMED) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(None, &format!("netns del {name}"));
        }
    }
}

fn ip(inside: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = inside {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: `cargo xtask setup` installs it")?;
    child
        .stdin
        .take()
        .context("`ip` without an input")?
        .write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "`ip` in {}: {}: {}",
            inside.unwrap_or("the host"),
            lines.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_empty_inside_and_gone_after_a_panic() {
        let outcome = std::panic::catch_unwind(|| {
            let namespace = Netns::unique("self").unwrap();
            let seen = namespace
                .enter(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap())
                .unwrap();
            assert_eq!(seen.lines().count(), 3, "two lines of heading and the loopback: {seen}");
            std::panic::panic_any(namespace.name().to_owned());
        });
        let name = *outcome.unwrap_err().downcast::<String>().unwrap();
        assert!(!Path::new(NAMED).join(name).exists());
    }

    #[test]
    fn what_a_dead_run_left_is_swept() {
        // A process number no kernel gives out.
        let name = format!("{PREFIX}4194305-0-left");
        ip(None, &format!("netns add {name}")).unwrap();
        sweep();
        assert!(!Path::new(NAMED).join(name).exists());
    }
}
