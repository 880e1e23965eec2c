// What a build script does to have an object for `include_bytes!`. Included by those of `userspace/kernel` and `benches`.
//
// Cargo itself decides whether the object is out of date, on every run, so a stale one is never embedded. On a machine without
// the eBPF tools this is the one error that is shown, before any linker is asked.

#[path = "recipe.rs"]
mod recipe;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

/// Everything that goes into the objects, as seen from `ebpf/`.
const SOURCES: [&str; 8] = [
    "src",
    "abi/src",
    "Cargo.toml",
    "Cargo.lock",
    "abi/Cargo.toml",
    "embed.rs",
    "recipe.rs",
    "../rust-toolchain.toml",
];

/// Builds the object `name` of `ebpf` (the folder, as seen from the package) and leaves it as `<name>.o` in `OUT_DIR`.
pub(crate) fn embed(ebpf: &str, name: &str) -> ExitCode {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let ebpf = Path::new(&manifest).join(ebpf);
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", ebpf.join(source).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let object = match recipe::build(&ebpf, name) {
        Ok(object) => object,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            println!("cargo::error=run `cargo xtask setup` to install what is missing, then `cargo xtask build`");
            return ExitCode::FAILURE;
        }
    };
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join(format!("{name}.o"));
    fs::copy(&object, &out).expect("the output folder is writable");
    ExitCode::SUCCESS
}
