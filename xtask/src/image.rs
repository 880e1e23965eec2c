//! `image`: `pierhead` as an image of one static program and the public authorities, made without Docker.
//!
//! Static against glibc, not musl: its allocator and its copies of memory are part of what makes the proxy fast, and
//! the two databases that glibc asks for names, files and DNS, are inside the library since 2.34.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::images;
use crate::cluster::place::Place;
use crate::oci::{self, Image};
use crate::sh::{self, say};
use crate::{ebpf, setup};

/// The name everything of ours uses.
pub(crate) const NAME: &str = "pierhead.dev/pierhead:dev";

const HELP: &str = "\
cargo xtask image [--profile release|lab | --program FILE] [--name NAME]… [--out FILE] [--load]
  --profile  release is what is shipped; lab compiles faster and runs slower
  --program  packs this one instead, with the libraries it asks for: target/debug/pierhead is there already
  --name     how the image is called; pierhead.dev/pierhead:dev unless given
  --out      the archive; image/pierhead.tar in cargo's target folder unless given
  --load     load it into the nodes of the running cluster";

/// What to make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) profile: String,
    /// Packed as it is, dynamic or not, instead of a program of the profile.
    pub(crate) program: Option<PathBuf>,
    pub(crate) names: Vec<String>,
    pub(crate) out: PathBuf,
    pub(crate) load: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            profile: "release".to_owned(),
            program: None,
            names: Vec::new(),
            out: sh::target_dir().join("image/pierhead.tar"),
            load: false,
        }
    }
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| matches!(arg.as_str(), "help" | "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    make(&ordered(args)?)
}

/// Builds the program and the archive, and loads it if so ordered.
///
/// # Errors
/// The program does not build, is not static, or a node refuses the image.
pub(crate) fn make(order: &Order) -> Result<()> {
    let (program, libraries) = match &order.program {
        Some(program) => (program.clone(), libraries(program)?),
        None => (build(&order.profile)?, Vec::new()),
    };
    let mut names: Vec<&str> = order.names.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push(NAME);
    }
    let roots = roots()?;
    let mut files = vec![
        ("/pierhead", program.as_path(), 0o755),
        ("/etc/ssl/certs/ca-certificates.crt", &roots, 0o644),
    ];
    for library in &libraries {
        files.push((library.to_str().context("a library of a strange name")?, library, 0o755));
    }
    let image = Image {
        names: &names,
        entrypoint: &["/pierhead"],
        // A pod that needs the capabilities of a node asks for root by itself.
        user: "65532:65532",
        files: &files,
    };
    oci::write(&image, &order.out)?;
    let size = fs::metadata(&order.out).map_or(0, |meta| meta.len()) / 1_000_000;
    say(&format!(
        "image: {} in {} ({size} MB)",
        names.join(" and "),
        order.out.display()
    ));
    if order.load {
        images::load(&Place::here(), &order.out)?;
    }
    Ok(())
}

fn ordered(args: &[String]) -> Result<Order> {
    let mut order = Order::default();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--profile" => order.profile = value()?,
            "--program" => order.program = Some(value()?.into()),
            "--name" => order.names.push(value()?),
            "--out" => order.out = value()?.into(),
            "--load" => order.load = true,
            _ => bail!("`image` does not know `{word}`\n{HELP}"),
        }
    }
    Ok(order)
}

/// Builds the static program; where it is.
fn build(profile: &str) -> Result<PathBuf> {
    setup::tools()?;
    ebpf::build()?;
    let target = host_target()?;
    // With a target named, the flags do not reach build scripts and macros, which cannot be static.
    sh::run(
        sh::cargo()
            .args([
                "build",
                "--package",
                "pierhead",
                "--profile",
                profile,
                "--target",
                &target,
            ])
            .arg("--config")
            .arg(format!("target.{target}.rustflags=[\"-Ctarget-feature=+crt-static\"]")),
    )?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let program = sh::target_dir().join(target).join(folder).join("pierhead");
    if let Some(loader) = interpreter(&fs::read(&program).context("cannot read the program")?)? {
        bail!("{} is not static: it asks for {loader}", program.display());
    }
    Ok(program)
}

/// The authorities that a BackendTLSPolicy with `wellKnownCACertificates: System` trusts, as one file: Mozilla's, out of
/// Debian's package, and none that was added to this machine.
fn roots() -> Result<PathBuf> {
    setup::debian_packages(&[("update-ca-certificates", "ca-certificates")])?;
    let folder = Path::new("/usr/share/ca-certificates/mozilla");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    let mut bundle = String::new();
    for file in &files {
        let certificate = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        bundle.push_str(certificate.trim_end());
        bundle.push('\n');
    }
    if bundle.is_empty() {
        bail!("{} holds no certificates", folder.display());
    }
    let to = sh::target_dir().join("image/ca-certificates.crt");
    fs::create_dir_all(sh::target_dir().join("image")).context("cannot make the image's folder")?;
    fs::write(&to, bundle).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(to)
}

/// The loader and the libraries of a dynamic program, where the program looks for them; none of a static one.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    if interpreter(&content)?.is_none() {
        return Ok(Vec::new());
    }
    Ok(parse_ldd(&sh::output(Command::new("ldd").arg(program))?))
}

/// `name => path (address)`, or `path (address)` for the loader; what the kernel brings has no path.
fn parse_ldd(said: &str) -> Vec<PathBuf> {
    said.lines()
        .filter_map(|line| {
            let place = line.split_once("=> ").map_or(line, |(_, place)| place);
            place.split_whitespace().next()
        })
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn host_target() -> Result<String> {
    let said = sh::output(Command::new("rustc").arg("-vV").current_dir(sh::root()))?;
    said.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not say what it runs on")
}

/// The dynamic loader that a 64-bit little-endian ELF program asks for (`PT_INTERP`); none when it is static.
fn interpreter(program: &[u8]) -> Result<Option<String>> {
    const INTERP: u64 = 3;
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF program");
    }
    let number = |at: usize, length: usize| -> Result<u64> {
        let bytes = program.get(at..at + length).context("an ELF program that ends early")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        let at = usize::try_from(table + header * size)?;
        if number(at, 4)? == INTERP {
            let start = usize::try_from(number(at + 8, 8)?)?;
            let end = start + usize::try_from(number(at + 32, 8)?)?;
            let path = program.get(start..end).context("an ELF program that ends early")?;
            return Ok(Some(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_become_an_order() {
        let order = ordered(&words("--profile lab --name a:1 --name b:2 --out x.tar --load")).unwrap();
        let wanted = Order {
            profile: "lab".to_owned(),
            program: None,
            names: words("a:1 b:2"),
            out: "x.tar".into(),
            load: true,
        };
        assert_eq!(order, wanted);
        assert!(ordered(&words("--name")).is_err());
        assert!(ordered(&words("--lod")).is_err());
    }

    #[test]
    fn libraries_are_read_where_they_are() {
        let said =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            parse_ldd(said),
            [PathBuf::from("/lib/x/libc.so.6"), "/lib64/ld-linux-x86-64.so.2".into()]
        );
        assert!(!libraries(&std::env::current_exe().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(interpreter(&this).unwrap().unwrap().contains("ld-linux"));
        let mut none = vec![0; 64];
        none[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(interpreter(&none).unwrap(), None);
        assert!(interpreter(b"#!/bin/sh").is_err());
    }
}
