//! Builds the kernel object and leaves its path for `include_bytes!`.
//!
//! Cargo itself decides whether the object is out of date, on every run, so a stale one is never embedded. On a
//! machine without the eBPF tools this is the one error that is shown, before any linker is asked.

#[path = "../../ebpf/recipe.rs"]
mod recipe;

use std::path::Path;
use std::{env, fs, process};

/// Everything that goes into the object, as seen from `ebpf/`.
const SOURCES: [&str; 7] = [
    "src",
    "abi/src",
    "Cargo.toml",
    "Cargo.lock",
    "abi/Cargo.toml",
    "recipe.rs",
    "../rust-toolchain.toml",
];

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let ebpf = Path::new(&manifest).join("../../ebpf");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", ebpf.join(source).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    let object = match recipe::build(&ebpf) {
        Ok(object) => object,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            println!("cargo::error=run `cargo xtask setup` to install what is missing, then `cargo xtask build`");
            process::exit(1);
        }
    };
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("pierhead-ebpf.o");
    fs::copy(&object, &out).expect("the output folder is writable");
}
