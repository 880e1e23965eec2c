//! A virtual machine that boots a kernel, runs test programs and ends.
//!
//! Its whole disk is the archive that the kernel unpacks first: `pierhead-guest` as its first process, modules, the programs
//! with the libraries that they ask for, and the plan. Emulated (TCG), so that it needs nothing of the machine below.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cpio::Cpio;
use crate::image::libraries;
use crate::kernels::fetch::Fetched;
use crate::sh;

const QEMU: &str = "qemu-system-x86_64";
/// What the tests make interfaces of, in the order in which the kernel takes them.
const MODULES: &[&str] = &["llc", "stp", "bridge", "veth"];
/// What tests start.
const TOOLS: &[&str] = &["ip"];
/// As many as CI has, and memory for programs, libraries and the flow tables of two tests at once.
const CPUS: &str = "2";
const MEMORY: &str = "3G";
/// Many times what the slowest takes.
const PATIENCE: Duration = Duration::from_mins(10);

/// A test program to run there.
pub(crate) struct Job<'a> {
    pub(crate) name: String,
    pub(crate) program: &'a Path,
    pub(crate) folder: &'a Path,
}

/// What is the same for every kernel.
pub(crate) struct Load {
    files: Vec<(String, Vec<u8>)>,
    plan: String,
}

impl Load {
    /// Packs the guest, the jobs and what they need.
    ///
    /// # Errors
    /// A program or one of its libraries is not there.
    pub(crate) fn new(guest: &Path, jobs: &[Job<'_>], dir: &Path) -> Result<Self> {
        let mut load = Self {
            files: Vec::new(),
            plan: String::new(),
        };
        let mut shared = BTreeSet::new();
        load.program("/init", guest, dir, &mut shared)?;
        for job in jobs {
            let at = job.program.to_str().context("a program of a strange name")?;
            load.program(at, job.program, dir, &mut shared)?;
            load.plan.push_str(&format!(
                "run {} {} {at} --show-output\n",
                job.name,
                job.folder.display()
            ));
        }
        for tool in TOOLS {
            let path = sh::which(tool).with_context(|| format!("there is no {tool}"))?;
            load.program(&format!("/bin/{tool}"), &path, dir, &mut shared)?;
        }
        for library in shared {
            let content = fs::read(&library).with_context(|| format!("cannot read {}", library.display()))?;
            load.files.push((library.to_string_lossy().into_owned(), content));
        }
        Ok(load)
    }

    fn program(&mut self, at: &str, program: &Path, dir: &Path, shared: &mut BTreeSet<PathBuf>) -> Result<()> {
        shared.extend(libraries(program)?);
        // Most of a debug build is for debuggers, and would be copied byte by byte by an emulated machine.
        let stripped = dir.join("stripped");
        sh::output(
            Command::new("strip")
                .arg("--strip-debug")
                .arg("-o")
                .arg(&stripped)
                .arg(program),
        )?;
        let content = fs::read(&stripped).context("cannot read what was stripped")?;
        self.files.push((at.to_owned(), content));
        Ok(())
    }

    /// The archive for one kernel, written beside it.
    fn archive(&self, kernel: &Fetched, to: &Path) -> Result<()> {
        let (mut cpio, mut plan) = (Cpio::default(), String::new());
        for name in MODULES {
            if let Some(module) = kernel.module(name)? {
                cpio.file(&format!("/modules/{name}.ko"), 0o644, &module);
                plan.push_str(&format!("module /modules/{name}.ko\n"));
            }
        }
        for (path, content) in &self.files {
            cpio.file(path, 0o755, content);
        }
        plan.push_str(&self.plan);
        cpio.file("/plan", 0o644, plan.as_bytes());
        fs::write(to, cpio.finish()).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Boots the kernel and lets it follow the plan; what the guest said.
    ///
    /// # Errors
    /// The machine does not start, or does not end in time.
    pub(crate) fn run_on(&self, kernel: &Fetched, dir: &Path) -> Result<String> {
        let archive = dir.join("initramfs");
        self.archive(kernel, &archive)?;
        let [console, said] = ["console", "said"].map(|name| dir.join(name));
        let child = Command::new(QEMU)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", CPUS, "-m", MEMORY])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&archive)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-serial")
            .arg(format!("file:{}", said.display()))
            .stdin(Stdio::null())
            .stderr(File::create(dir.join("qemu")).context("cannot write what QEMU says")?)
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?;
        let ended = wait(child);
        fs::remove_file(&archive).context("cannot remove the archive")?;
        let text = |path: &Path| -> String {
            let mut bytes = Vec::new();
            let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).replace('\r', "")
        };
        if !ended? {
            bail!(
                "it did not end in {} s; the guest said\n{}",
                PATIENCE.as_secs(),
                text(&said)
            );
        }
        let answer = text(&said);
        if !answer.lines().any(|line| line == "done") {
            bail!(
                "it ended early.\nThe guest: {answer}\nIts kernel: {}\nQEMU: {}",
                text(&console),
                text(&dir.join("qemu"))
            );
        }
        Ok(answer)
    }
}

/// Whether it ended by itself.
fn wait(mut child: Child) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}
