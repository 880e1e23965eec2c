//! What the cluster takes from Debian.

use anyhow::{Context, Result, bail};

use crate::{setup, sh};

/// A program that must be on the path, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("runc", "runc"),
    ("openssl", "openssl"),
    ("cc", "build-essential"),
    ("nsenter", "util-linux"),
    ("sysctl", "procps"),
    ("umount", "mount"),
];

const GO: (&str, &str) = ("go", "golang-go");

/// Installs what is missing.
///
/// # Errors
/// Not root, no apt-get, or no installation.
pub(crate) fn install() -> Result<()> {
    need_root()?;
    setup::debian_packages(PROGRAMS)?;
    setup::bpffs()?;
    install_go()
}

/// Installs Go where there is none.
///
/// # Errors
/// No installation, or a Go that is too old.
pub(crate) fn install_go() -> Result<()> {
    setup::debian_packages(&[GO])?;
    let said = sh::output(std::process::Command::new("go").arg("version").current_dir("/"))?;
    if !brings_toolchains(&said) {
        bail!(
            "{} is too old to bring {GO_TOOLCHAIN}: install Go 1.21 or newer",
            said.trim()
        );
    }
    Ok(())
}

/// Whether this Go fetches the toolchain that a module asks for, as it does since 1.21.
fn brings_toolchains(version: &str) -> bool {
    let minor = version
        .split_once("go1.")
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    minor
        .and_then(|digits| digits.parse::<u32>().ok())
        .is_some_and(|minor| minor >= 21)
}

/// # Errors
/// Not root.
pub(crate) fn need_root() -> Result<()> {
    if sh::is_root() {
        return Ok(());
    }
    bail!("the cluster makes network namespaces and mounts: run it as root");
}

/// The Go toolchain of the modules: a Go module itself, so any Go since 1.21 can bring it.
pub(crate) const GO_TOOLCHAIN: &str = "go1.27.3";

/// A `go` command in a module of ours, with the three settings that are part of the build cache's key.
pub(crate) fn go(module: &std::path::Path) -> std::process::Command {
    let mut command = std::process::Command::new("go");
    command
        .current_dir(module)
        .env("GOTOOLCHAIN", GO_TOOLCHAIN)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly");
    command
}

/// The folder of a Go module's sources, as `go list` tells it.
///
/// # Errors
/// `go` cannot find it.
pub(crate) fn module_dir(in_module: &std::path::Path, module: &str) -> Result<std::path::PathBuf> {
    let download = sh::output(go(in_module).args(["list", "-m", "-f", "{{.Dir}}", module]))?;
    let dir = download.trim();
    if !dir.is_empty() {
        return Ok(dir.into());
    }
    sh::output(go(in_module).args(["mod", "download", module]))?;
    let dir = sh::output(go(in_module).args(["list", "-m", "-f", "{{.Dir}}", module]))?;
    Some(dir.trim())
        .filter(|dir| !dir.is_empty())
        .map(Into::into)
        .with_context(|| format!("Go has no folder for {module}"))
}

#[cfg(test)]
mod tests {
    use super::brings_toolchains;

    #[test]
    fn an_old_go_is_told() {
        assert!(brings_toolchains("go version go1.26.8 linux/amd64"));
        assert!(brings_toolchains("go version go1.21.0 linux/amd64"));
        assert!(!brings_toolchains("go version go1.19.8 linux/amd64"));
        assert!(!brings_toolchains("devel"));
    }
}
