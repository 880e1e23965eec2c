// How the kernel objects are built. Included by `cargo xtask build` and by the build scripts of `userspace/kernel` and
// `benches`, so that all build the same thing the same way; standard library only.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINKER: &str = "bpf-linker";
const TARGET: &str = "bpfel-unknown-none";

/// What is missing on this machine, each with the command that installs it. Empty: the object can be built.
fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let library = sysroot
        .ok()
        .filter(|out| out.status.success())
        .map(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).join("lib/rustlib/src/rust/library/core"));
    if !library.is_some_and(|path| path.exists()) {
        missing.push("the source of the Rust standard library: rustup component add rust-src".to_owned());
    }
    let on_path = env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(LINKER).exists()));
    if !on_path {
        missing.push(format!("{LINKER}: cargo install {LINKER} --version 0.10.4 --locked"));
    }
    missing
}

/// Builds what is in `ebpf` (the folder) and returns the path of the object `name`. Cargo decides what is out of date.
///
/// # Errors
/// A message for a person: what is missing, or what the compiler said.
pub(crate) fn build(ebpf: &Path, name: &str) -> Result<PathBuf, String> {
    let missing = missing();
    if !missing.is_empty() {
        return Err(format!(
            "the eBPF programs cannot be built here; missing {}",
            missing.join("; ")
        ));
    }
    let target_dir = ebpf.join("target");
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(ebpf)
        .args(["build", "--release", "--locked", "--quiet", "-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir)
        // Unstable options on the pinned stable toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [&format!("-Clinker={LINKER}"), "-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"].join("\x1f"),
        );
    // Set by an outer cargo for the host; wrong here.
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(name);
    }
    let output = cargo
        .output()
        .map_err(|error| format!("cannot run cargo for the eBPF programs: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the eBPF programs do not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let object = target_dir.join(TARGET).join("release").join(name);
    if object.exists() {
        Ok(object)
    } else {
        Err(format!("cargo built no {}", object.display()))
    }
}
