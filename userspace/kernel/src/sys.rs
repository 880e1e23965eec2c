//! System calls that no safe crate offers. The only file of this crate with `unsafe`, besides the shared counters.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: libc::c_long = 0;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: every caller passes a `repr(C)` prefix of `union bpf_attr` for this command, with its real size, whose
    // pointers are valid for the call.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Gives free memory of the heap back to the system, also what lies between memory in use. Takes milliseconds, and each
/// thread's heap in turn.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches nothing but what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How long a thread that can wait has its core before another may have it, in ns. The kernel's own answer is some milliseconds.
const SLICE: u64 = 100_000;

/// Of the system calls that take the number of a thread.
const CALLING_THREAD: libc::c_long = 0;
const NO_FLAGS: libc::c_long = 0;

/// `struct sched_attr` in its first size, `sched_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn sched_attr() -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: the kernel writes no more than `size` bytes.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            CALLING_THREAD,
            std::ptr::from_mut(&mut attr),
            size,
            NO_FLAGS,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attr)
}

/// Lets whoever wakes have the core of the calling thread, and of those that it starts from now on, after a tenth of a millisecond,
/// where the scheduler would let it go on for some milliseconds. What it has of the core in all stays the same. Linux before 6.12
/// ignores it.
///
/// # Errors
/// The system call is refused.
pub fn shorten_slices() -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        runtime: SLICE,
        ..sched_attr()?
    };
    // SAFETY: the kernel reads `size` bytes, which are there.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            CALLING_THREAD,
            std::ptr::from_ref(&attr),
            NO_FLAGS,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets go of the pages of this program's code that are mapped. Most of them were needed for the start alone; those that are
/// needed again come back from the page cache when they are touched.
pub fn unmap_code() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        // `start-end r-xp offset device inode path`
        let is_code = line.contains(" r-xp ") && line.ends_with(&*program.to_string_lossy());
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.filter(|_| is_code)
            && let (Some(start), Some(end)) = (address(start), address(end))
        {
            // SAFETY: a private mapping of a file that was never written to, for code needs no relocation: what is dropped
            // is what is in the file, and is read from there again.
            unsafe {
                libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
            }
        }
    }
}

/// Opens a pinned object of any kind.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    let fd = bpf(OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether an object is a map, rather than a program or a link. There is no system call that asks; the file has a name.
pub(crate) fn is_map(object: &OwnedFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))
        .is_ok_and(|name| name.as_os_str().as_bytes().ends_with(b"bpf-map"))
}

/// Whether a link to a network namespace has outlived it.
pub(crate) fn is_orphan(link: &OwnedFd) -> bool {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))
        .is_ok_and(|info| info.lines().any(|line| line == "netns_ino:\t0"))
}

/// Replaces the program of a link, atomically.
pub(crate) fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link_fd: i32,
        new_prog_fd: i32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr = Attr {
        link_fd: link.as_fd().as_raw_fd(),
        new_prog_fd: program.as_fd().as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link now, whoever else holds it.
pub(crate) fn link_detach(link: impl AsFd) -> io::Result<()> {
    let mut attr = link.as_fd().as_raw_fd();
    bpf(LINK_DETACH, &mut attr).map(drop)
}

/// `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: i32,
    elem_flags: u64,
    flags: u64,
}

/// Reads up to `count` entries of a hash map, from `cursor` on. Returns how many, and whether it was the end.
pub(crate) fn lookup_batch(
    map: impl AsFd,
    cursor: &mut Option<u32>,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<(u32, bool)> {
    let given = cursor.unwrap_or_default();
    let mut next = 0u32;
    let mut attr = Batch {
        in_batch: if cursor.is_some() { (&raw const given) as u64 } else { 0 },
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: map.as_fd().as_raw_fd(),
        ..Batch::default()
    };
    match bpf(MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => {
            *cursor = Some(next);
            Ok((attr.count, false))
        }
        // The end of the map; what was found before it is there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            *cursor = None;
            Ok((attr.count, true))
        }
        Err(error) => Err(error),
    }
}

/// Writes entries in order, up to the first that is refused. `K` and `V` are the sizes of the map, all keys and values of plain
/// bytes.
pub(crate) fn update_batch<const K: usize, const V: usize>(
    map: impl AsFd,
    keys: &[[u8; K]],
    values: &[[u8; V]],
) -> io::Result<()> {
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len().min(values.len()) as u32,
        map_fd: map.as_fd().as_raw_fd(),
        ..Batch::default()
    };
    bpf(MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Removes entries in order, up to the first that is not there; how many are gone.
pub(crate) fn delete_batch<const K: usize>(map: impl AsFd, keys: &[[u8; K]]) -> (usize, io::Result<()>) {
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_fd().as_raw_fd(),
        ..Batch::default()
    };
    let result = bpf(MAP_DELETE_BATCH, &mut attr).map(drop);
    (attr.count as usize, result)
}

/// Makes an array that no program knows yet: an element of a map of maps.
pub(crate) fn create_array(value_size: u32, max_entries: u32, flags: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let mut attr = Attr {
        map_type: ARRAY,
        key_size: size_of::<u32>() as u32,
        value_size,
        max_entries,
        map_flags: flags,
    };
    let fd = bpf(MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a program made of a packet.
#[derive(Debug)]
pub struct TestRun {
    pub verdict: i32,
    /// The packet afterwards; empty where the program does not have one.
    pub frame: Vec<u8>,
    /// Of the run, in nanoseconds, with what it takes to look at the clock.
    pub nanoseconds: u32,
}

/// The arguments of `BPF_PROG_TEST_RUN` (`union bpf_attr`).
#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: i32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs a loaded classifier once on a frame (`BPF_PROG_TEST_RUN`).
///
/// # Errors
/// Those of the system call.
pub fn test_run(program: impl AsFd, frame: &[u8]) -> io::Result<TestRun> {
    let mut out = vec![0u8; frame.len() + 256];
    let mut attr = TestRunAttr {
        prog_fd: program.as_fd().as_raw_fd(),
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        ..TestRunAttr::default()
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok(TestRun {
        verdict: attr.retval as i32,
        frame: out,
        nanoseconds: attr.duration,
    })
}

/// A socket that is looked for, as a program of the type `sk_lookup` sees it (`struct bpf_sk_lookup`, linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct SkLookup {
    /// Must be zero going in; the cookie of the chosen socket coming out.
    cookie: u64,
    family: u32,
    protocol: u32,
    remote_ip4: [u8; 4],
    remote_ip6: [u8; 16],
    /// In network order.
    remote_port: [u8; 2],
    padding: [u8; 2],
    local_ip4: [u8; 4],
    local_ip6: [u8; 16],
    /// In the order of the host.
    local_port: u32,
    ingress_ifindex: u32,
    /// The kernel wants zeros here too.
    tail: u32,
}

/// Runs a loaded `sk_lookup` program once (`BPF_PROG_TEST_RUN`, since Linux 5.14): what it takes, what it says, and whether it
/// chose a socket.
pub(crate) fn test_lookup(
    program: impl AsFd,
    protocol: i32,
    remote: SocketAddr,
    local: SocketAddr,
) -> io::Result<(TestRun, bool)> {
    let mut lookup = SkLookup {
        protocol: protocol as u32,
        remote_port: remote.port().to_be_bytes(),
        local_port: local.port().into(),
        ..SkLookup::default()
    };
    match (remote.ip(), local.ip()) {
        (IpAddr::V4(remote), IpAddr::V4(local)) => {
            lookup.family = libc::AF_INET as u32;
            lookup.remote_ip4 = remote.octets();
            lookup.local_ip4 = local.octets();
        }
        (IpAddr::V6(remote), IpAddr::V6(local)) => {
            lookup.family = libc::AF_INET6 as u32;
            lookup.remote_ip6 = remote.octets();
            lookup.local_ip6 = local.octets();
        }
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
    let at = std::ptr::from_mut(&mut lookup) as u64;
    let mut attr = TestRunAttr {
        prog_fd: program.as_fd().as_raw_fd(),
        ctx_size_in: size_of::<SkLookup>() as u32,
        ctx_size_out: size_of::<SkLookup>() as u32,
        ctx_in: at,
        ctx_out: at,
        ..TestRunAttr::default()
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    let run = TestRun {
        verdict: attr.retval as i32,
        frame: Vec::new(),
        nanoseconds: attr.duration,
    };
    // Written by the kernel behind the compiler's back.
    // SAFETY: a reference is a valid pointer.
    let cookie = unsafe { std::ptr::read_volatile(&raw const lookup.cookie) };
    Ok((run, cookie != 0))
}

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns` counts.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A socket that sends whole Ethernet frames (packet(7)). It receives nothing: protocol 0.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends one frame out of an interface.
pub(crate) fn send_frame(socket: impl AsFd, interface: u32, frame: &[u8]) -> io::Result<()> {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    if let (Some(to), Some(of_frame)) = (address.sll_addr.first_chunk_mut::<6>(), frame.first_chunk::<6>()) {
        *to = *of_frame;
    }
    // SAFETY: both pointers are valid for the lengths given, for the duration of the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_this_thread_alone_become_short_and_its_priority_stays() {
        let before = sched_attr().unwrap();
        let of_another = std::thread::spawn(|| {
            shorten_slices().unwrap();
            sched_attr().unwrap()
        });
        let shortened = of_another.join().unwrap();
        assert_eq!((shortened.policy, shortened.nice), (before.policy, before.nice));
        // Kernels that do not know slices say none.
        assert_eq!(shortened.runtime, if before.runtime == 0 { 0 } else { SLICE });
        assert_eq!(sched_attr().unwrap().runtime, before.runtime);
    }
}
