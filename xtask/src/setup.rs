//! `setup`: installs what building and testing need, and says so. Quick when all is there.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh::{self, say};

/// A program that must be on the path, and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    // Linker for Rust, C compiler for aws-lc-sys.
    ("cc", "build-essential"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("curl", "curl"),
];

/// The last one that takes LLVM from rustc itself; later ones need LLVM's own development files.
const BPF_LINKER: &str = "0.10.4";

const BPFFS: &str = "/sys/fs/bpf";

pub(crate) fn run(_args: &[String]) -> Result<()> {
    let did = all()?;
    say(if did {
        "setup: done"
    } else {
        "setup: everything is there"
    });
    Ok(())
}

/// Brings everything that is missing; whether anything was.
pub(crate) fn all() -> Result<bool> {
    let tools = tools()?;
    let bpffs = bpffs()?;
    Ok(tools || bpffs)
}

/// Brings the programs that building and testing call; whether any was missing.
pub(crate) fn tools() -> Result<bool> {
    let packages = debian_packages(PROGRAMS)?;
    let source = rust_source()?;
    let linker = bpf_linker()?;
    Ok(packages || source || linker)
}

/// Installs the packages of the programs that are missing, each `(program, package)`; whether any was.
pub(crate) fn debian_packages(programs: &[(&str, &'static str)]) -> Result<bool> {
    let mut missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !sh::has(program))
        .map(|&(_, package)| package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(false);
    }
    say(&format!("setup: installing Debian packages: {}", missing.join(" ")));
    apt_install(&missing)?;
    Ok(true)
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let wanted = packages.join(" ");
    if !sh::has("apt-get") {
        bail!("this machine has no apt-get: install the equivalents of these Debian packages yourself: {wanted}");
    }
    need_root(&format!("to install {wanted}"))?;
    sh::run(Command::new("apt-get").args(["update", "-q"]))?;
    sh::run(
        Command::new("apt-get")
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| format!("install these yourself: {wanted}"))
}

/// The eBPF target has no prebuilt `core`: it is built from Rust's own source, which must be of the compiler's version.
fn rust_source() -> Result<bool> {
    if has_rust_source("rustc") || debian_rust_ready() {
        return Ok(false);
    }
    if sh::has("rustup") {
        say("setup: adding Rust's own source (rust-src), which the eBPF target is built from");
        let added = sh::run(
            Command::new("rustup")
                .args(["component", "add", "rust-src"])
                .current_dir(sh::root()),
        );
        if added.is_ok() && has_rust_source("rustc") {
            return Ok(true);
        }
        say("setup: rustup could not; taking a compiler with its source from Debian, for the eBPF programs only");
    } else {
        say("setup: no rustup here; taking a compiler with its source from Debian, for the eBPF programs only");
    }
    apt_install(&["rustc-web", "cargo-web", "rust-web-src"])?;
    if debian_rust_ready() {
        return Ok(true);
    }
    bail!("Rust's source for `core` is missing: run `rustup component add rust-src` in this folder");
}

/// Debian's compiler, cargo and source of one version, all in place.
fn debian_rust_ready() -> bool {
    has_rust_source("/usr/bin/rustc") && std::path::Path::new("/usr/bin/cargo").exists()
}

fn has_rust_source(rustc: &str) -> bool {
    let sysroot = sh::output(Command::new(rustc).args(["--print", "sysroot"]).current_dir(sh::root()));
    sysroot.is_ok_and(|dir| {
        std::path::Path::new(dir.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists()
    })
}

fn bpf_linker() -> Result<bool> {
    let installed = sh::output(Command::new("bpf-linker").arg("--version"));
    if installed.is_ok_and(|version| version.trim() == format!("bpf-linker {BPF_LINKER}")) {
        return Ok(false);
    }
    say(&format!("setup: installing bpf-linker {BPF_LINKER} (a few minutes)"));
    sh::run(sh::cargo().args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]))?;
    Ok(true)
}

/// Mounts the file system in which the kernel pins maps and links; whether it was missing.
pub(crate) fn bpffs() -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if is_mounted(&mounts, BPFFS, "bpf") {
        return Ok(false);
    }
    say(&format!("setup: mounting the bpf file system on {BPFFS}"));
    need_root("to mount the bpf file system")?;
    sh::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    Ok(true)
}

fn is_mounted(mounts: &str, at: &str, kind: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(at) && fields.next() == Some(kind)
    })
}

fn need_root(why: &str) -> Result<()> {
    if sh::is_root() {
        return Ok(());
    }
    bail!("needs root {why}: run `cargo xtask setup` as root once");
}

#[cfg(test)]
mod tests {
    use super::is_mounted;

    #[test]
    fn a_mount_is_seen_by_place_and_kind() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert!(is_mounted(mounts, "/sys/fs/bpf", "bpf"));
        assert!(!is_mounted(mounts, "/sys/fs/bpf", "tmpfs"));
        assert!(!is_mounted("tmpfs /sys/fs tmpfs rw 0 0\n", "/sys/fs/bpf", "bpf"));
    }
}
