//! What the kernel's verifier says of a program. Kernels before 5.16 say it at no other time than when they load it.
#![allow(
    dead_code,
    reason = "a module of a test and of a bench, each of which uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use aya::maps::MapData;
use aya_obj::generated::bpf_insn;
use aya_obj::{Map, Object, ProgramSection};
use pierhead_abi::layout::LAYOUT;

/// The object that the library embeds.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pierhead-ebpf.o"));

/// Loads every program with the maps that are pinned here, and lets go of them: by name, how many instructions the verifier
/// looked at.
pub(crate) fn looked_at() -> Vec<(String, u32)> {
    let mut object = Object::parse(OBJECT).unwrap();
    let namespace = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let maps: Vec<(String, MapData, Map)> = object
        .maps
        .iter()
        .map(|(name, map)| {
            let pin = format!("/sys/fs/bpf/pierhead/{namespace}/v{LAYOUT}/{name}");
            (name.clone(), MapData::from_pin(pin).unwrap(), map.clone())
        })
        .collect();
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let pinned = maps
        .iter()
        .map(|(name, data, map)| (name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    object.relocate_maps(pinned, &sections).unwrap();
    object.relocate_calls(&sections).unwrap();
    let mut counts: Vec<(String, u32)> = object
        .programs
        .iter()
        .map(|(name, program)| {
            let code = &object.functions[&program.function_key()].instructions;
            let (_, log) = load(&program.section, code, &program.license)
                .unwrap_or_else(|(error, log)| panic!("{name}: {error}\n{log}"));
            (name.clone(), processed(&log))
        })
        .collect();
    counts.sort();
    counts
}

/// A program that takes the same time wherever it stands: 4 times `rounds` instructions, each of which waits for the one before,
/// and no memory.
pub(crate) fn spin(rounds: i32) -> OwnedFd {
    let insn = |code: u8, dst: u8, src: u8, off: i16, imm: i32| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
        off,
        imm,
    };
    let code = [
        insn(0xb7, 0, 0, 0, 1),           // r0 = 1
        insn(0xb7, 1, 0, 0, rounds),      // r1 = rounds
        insn(0x27, 0, 0, 0, 0x1e37_79b1), // r0 *= ...
        insn(0xaf, 0, 1, 0, 0),           // r0 ^= r1
        insn(0x07, 1, 0, 0, -1),          // r1 -= 1
        insn(0x55, 1, 0, -4, 0),          // if r1 != 0 goto -4
        insn(0x95, 0, 0, 0, 0),           // exit
    ];
    let (program, _) =
        load(&ProgramSection::SchedClassifier, &code, c"GPL").unwrap_or_else(|(error, log)| panic!("{error}\n{log}"));
    program
}

/// The program and the verifier's log, or what is wrong and the log.
fn load(section: &ProgramSection, code: &[bpf_insn], license: &CStr) -> Result<(OwnedFd, String), (io::Error, String)> {
    const PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    const SK_LOOKUP: u32 = 30;
    const ATTACH_SK_LOOKUP: u32 = 36;
    /// `BPF_LOG_STATS`.
    const STATS: u32 = 4;
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    let (prog_type, expected_attach_type) = if matches!(section, ProgramSection::SkLookup) {
        (SK_LOOKUP, ATTACH_SK_LOOKUP)
    } else {
        (SCHED_CLS, 0)
    };
    let mut log = vec![0u8; 65_536];
    let mut attr = Attr {
        prog_type,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: STATS,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        expected_attach_type,
        ..Attr::default()
    };
    // SAFETY: a prefix of `union bpf_attr` for this command with its real size; what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw mut attr, size_of::<Attr>()) };
    let error = io::Error::last_os_error();
    let text = CStr::from_bytes_until_nul(&log).unwrap().to_string_lossy().into_owned();
    if fd < 0 {
        return Err((error, text));
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok((unsafe { OwnedFd::from_raw_fd(fd as i32) }, text))
}

/// The number in `processed 1142 insns (limit 1000000) …`.
fn processed(log: &str) -> u32 {
    let (_, rest) = log.split_once("processed ").expect("the verifier counts");
    rest.split(' ').next().unwrap().parse().unwrap()
}
