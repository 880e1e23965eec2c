//! The first process of a virtual machine: mounts what tests need, does what `/plan` says, a line at a time, tells the second
//! serial line what became of it, and ends the machine.
//!
//! `module FILE` loads a module; `run NAME FOLDER PROGRAM ARGUMENT…` runs a test program, whose output it passes
//! on, between `begin NAME` and `end NAME STATUS`. Who reads that is `cargo xtask test kernels`, which also writes the plan.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where the plan is, in the initial file system.
const PLAN: &str = "/plan";
/// The line that is listened to. The first one is the kernel's own.
const LINE: &str = "/dev/ttyS1";

/// What, where and of which kind.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", "proc"),
    ("sysfs", "/sys", "sysfs"),
    ("devtmpfs", "/dev", "devtmpfs"),
    ("tmpfs", "/tmp", "tmpfs"),
    ("tmpfs", "/run", "tmpfs"),
    ("bpf", "/sys/fs/bpf", "bpf"),
];

fn main() -> ExitCode {
    // On a machine that is not ours to end.
    if std::process::id() != 1 {
        return ExitCode::FAILURE;
    }
    // Without the line nobody hears anything, which is an answer too: the machine ends, and its last word is missing.
    let _ = work();
    // Asked to start again, it ends: it was started so.
    let _ = reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}

fn work() -> Result<()> {
    let mounted = mount_all();
    let mut line = OpenOptions::new()
        .write(true)
        .open(LINE)
        .with_context(|| format!("cannot open {LINE}"))?;
    let done = mounted.and_then(|()| follow_plan(&mut line));
    match &done {
        Ok(()) => writeln!(line, "done")?,
        Err(error) => writeln!(line, "error {error:#}")?,
    }
    // Closing it waits until all of it is sent.
    drop(line);
    done
}

fn mount_all() -> Result<()> {
    for (source, target, kind) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("cannot make {target}"))?;
        mount(*source, *target, *kind, MountFlags::empty(), None::<&CStr>)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    Ok(())
}

fn follow_plan(line: &mut File) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel does not say its release")?;
    writeln!(line, "kernel {}", release.trim())?;
    let plan = fs::read_to_string(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    for step in plan.lines() {
        match step.split(' ').collect::<Vec<_>>()[..] {
            ["module", file] => load(file)?,
            ["run", name, folder, program, ref arguments @ ..] => run(line, name, folder, program, arguments)?,
            _ => bail!("no step of a plan: {step}"),
        }
    }
    Ok(())
}

fn load(file: &str) -> Result<()> {
    let module = File::open(file).with_context(|| format!("cannot open {file}"))?;
    finit_module(&module, c"", 0).with_context(|| format!("the kernel does not take {file}"))
}

fn run(line: &mut File, name: &str, folder: &str, program: &str, arguments: &[&str]) -> Result<()> {
    writeln!(line, "begin {name}")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/bin")
        .stdin(Stdio::null())
        .stdout(line.try_clone()?)
        .stderr(line.try_clone()?)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    writeln!(line, "end {name} {}", status.code().unwrap_or(-1))?;
    Ok(())
}
