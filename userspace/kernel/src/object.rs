//! The kernel object, embedded.

/// The ELF file. Built by `build.rs`, aligned for the reader.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pierhead-ebpf.o"));
