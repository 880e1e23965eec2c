//! Kernels from Debian: packages out of the mirror that this machine uses, taken apart without being installed.
//!
//! `apt` checks their signatures. It works in folders of its own under cargo's target folder; the system's sources and lists
//! stay as they are. What was taken apart once stays there, and is used again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh::{self, say};

/// Depends on the newest kernel of its suite: the small one, for virtual machines.
const META: &str = "linux-image-cloud-amd64";
/// Kernel and modules are in one package or in several, each depending on the next.
const PARTS: &[&str] = &["linux-image-", "linux-binary-", "linux-modules-"];

/// Whom a machine trusts whose mirror has suites that its sources do not name.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel, taken apart.
pub(crate) struct Fetched {
    pub(crate) image: PathBuf,
    /// The folder of its modules.
    modules: PathBuf,
}

/// The newest kernel of a suite of Debian.
///
/// # Errors
/// No mirror is configured, it does not have the suite, or a package cannot be had or taken apart.
pub(crate) fn kernel(suite: &str, dir: &Path) -> Result<Fetched> {
    let whole = dir.join(suite);
    if !whole.exists() {
        say(&format!("kernels: fetching the newest kernel of Debian {suite}"));
        // Moved to its place when all is there: what was cut off half-way is fetched anew.
        let part = dir.join(format!("{suite}.part"));
        if part.exists() {
            fs::remove_dir_all(&part).context("cannot remove what was fetched half-way")?;
        }
        Apt::new(suite, &part)?.fetch(&part)?;
        fs::rename(&part, &whole).context("cannot move the kernel to its place")?;
    }
    Fetched::in_folder(&whole.join("root"))
}

impl Fetched {
    fn in_folder(root: &Path) -> Result<Self> {
        let only = |folder: &Path, prefix: &str| -> Result<PathBuf> {
            let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
            let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            paths
                .find(|path| {
                    path.file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
                })
                .with_context(|| format!("no {prefix}… in {}", folder.display()))
        };
        // Since /usr was merged they are there.
        let modules = [root.join("usr/lib/modules"), root.join("lib/modules")];
        let modules = modules.iter().find(|path| path.exists()).context("no modules")?;
        let modules = only(modules, "")?;
        // Newer packages keep the kernel beside its modules.
        let beside = modules.join("vmlinuz");
        let image = if beside.exists() {
            beside
        } else {
            only(&root.join("boot"), "vmlinuz-")?
        };
        Ok(Self { image, modules })
    }

    /// A module, uncompressed; `None` where it is part of the kernel.
    ///
    /// # Errors
    /// It is neither there nor part of the kernel.
    pub(crate) fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (plain, packed) = (format!("{name}.ko"), format!("{name}.ko.xz"));
        if let Some(path) = find(&self.modules, &plain)? {
            return Ok(Some(fs::read(path)?));
        }
        if let Some(path) = find(&self.modules, &packed)? {
            let done = Command::new("xz").args(["-dc"]).arg(&path).output()?;
            if !done.status.success() {
                bail!("xz does not unpack {}", path.display());
            }
            return Ok(Some(done.stdout));
        }
        let builtin = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        if builtin.lines().any(|line| line.ends_with(&format!("/{plain}"))) {
            return Ok(None);
        }
        bail!("the kernel has no module {name}: {}", self.modules.display())
    }
}

/// The first file of this name under a folder.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let (kind, path) = {
            let entry = entry?;
            (entry.file_type()?, entry.path())
        };
        if kind.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|it| it == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `apt` with one source and folders of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, dir: &Path) -> Result<Self> {
        let (apt, sources) = (dir.join("apt"), dir.join("sources.list"));
        for folder in ["lists/partial", "archives/partial", "preferences.d"] {
            fs::create_dir_all(apt.join(folder)).context("cannot make apt's folders")?;
        }
        let trusted = if Path::new(KEYRING).exists() {
            format!(" signed-by={KEYRING}")
        } else {
            String::new()
        };
        let mirror = mirror()?;
        let source = format!("deb [arch=amd64 target=Packages{trusted}] {mirror} {suite} main\n");
        fs::write(&sources, source).context("cannot write apt's source")?;
        let option = |(name, value): (&str, PathBuf)| ["-o".to_owned(), format!("{name}={}", value.display())];
        let options = [
            ("Dir::State", apt.clone()),
            ("Dir::State::Lists", apt.join("lists")),
            // No package is installed here, and none asks for another one.
            ("Dir::State::Status", "/dev/null".into()),
            ("Dir::Cache", apt.clone()),
            ("Dir::Etc::SourceList", sources),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", apt.join("preferences.d")),
            // The folder is root's alone; what comes out is checked all the same.
            ("APT::Sandbox::User", "root".into()),
        ];
        Ok(Self {
            options: options.into_iter().flat_map(option).collect(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// Fetches the packages into `dir`, and takes them apart into `dir/root`.
    fn fetch(&self, dir: &Path) -> Result<()> {
        sh::output(self.command("apt-get").args(["update", "-q"]))?;
        let (mut todo, mut packages) = (vec![META.to_owned()], BTreeSet::new());
        while let Some(name) = todo.pop() {
            let shown = sh::output(self.command("apt-cache").args(["show", "--no-all-versions", &name]))?;
            todo.extend(depends(&shown).into_iter().filter(|next| !packages.contains(next)));
            packages.insert(name);
        }
        packages.remove(META);
        let mut download = self.command("apt-get");
        sh::output(download.current_dir(dir).args(["download", "-q"]).args(&packages))?;
        let root = dir.join("root");
        fs::create_dir_all(&root).context("cannot make a folder")?;
        for entry in fs::read_dir(dir).context("cannot list what was fetched")? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == "deb") {
                sh::output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
                fs::remove_file(&path).context("cannot remove a package")?;
            }
        }
        fs::remove_dir_all(dir.join("apt")).context("cannot remove apt's folders")
    }
}

/// The parts of a kernel that a package depends on, out of what `apt-cache show` says.
fn depends(shown: &str) -> Vec<String> {
    let line = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
    line.unwrap_or_default()
        .split(", ")
        .filter_map(|one| one.split(' ').next())
        .filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
        .map(str::to_owned)
        .collect()
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String> {
    let said = sh::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    parse_mirror(&said).context("this machine's apt has no mirror of Debian, or has no lists of it: apt-get update")
}

/// Not the one of security updates, which has other suites.
fn parse_mirror(said: &str) -> Option<String> {
    said.lines()
        .find_map(|line| line.strip_prefix("Debian|Debian|"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_own_and_not_that_of_others_or_of_updates() {
        let said = "Debian|Debian-Security|http://a/\nx|y|http://b/\nDebian|Debian|http://c/debian/\n";
        assert_eq!(parse_mirror(said).as_deref(), Some("http://c/debian/"));
        assert_eq!(parse_mirror("Ubuntu|Ubuntu|http://d/\n"), None);
    }

    #[test]
    fn a_kernel_lies_where_old_and_new_packages_put_it() {
        let put = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            for file in files {
                let path = root.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            root
        };
        let old = put(&["boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1/modules.builtin"]);
        let found = Fetched::in_folder(old.path()).unwrap();
        assert_eq!(found.image, old.path().join("boot/vmlinuz-6.1"));
        assert_eq!(found.modules, old.path().join("lib/modules/6.1"));
        let new = put(&["usr/lib/modules/7.3/vmlinuz"]);
        assert_eq!(
            Fetched::in_folder(new.path()).unwrap().image,
            new.path().join("usr/lib/modules/7.3/vmlinuz")
        );
        assert!(Fetched::in_folder(put(&["usr/lib/modules/7.3/modules.dep"]).path()).is_err());
    }

    #[test]
    fn parts_of_a_kernel_are_told_from_what_else_it_depends_on() {
        let shown = "Package: x\nDepends: kmod, linux-modules-7.3.4-cloud-amd64 (= 7), linux-base-7.3.4 (= 7), \
                     initramfs-tools (>= 0.120) | linux-initramfs-tool\nDescription: Depends: no\n";
        assert_eq!(depends(shown), ["linux-modules-7.3.4-cloud-amd64"]);
        assert!(depends("Package: x\n").is_empty());
    }
}
