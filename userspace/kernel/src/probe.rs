//! What this machine lets us do, with the reason for what it does not.

use std::path::Path;

use rustix::thread::CapabilitySet;

use crate::netlink::Netlink;
use crate::pins;
use crate::surroundings;

/// What the kernel and the process can do. A feature that is missing carries one line that says why and, where there
/// is one, the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `major.minor` of the running kernel.
    pub kernel: (u32, u32),
    /// Steering of sockets.
    pub steer: Result<(), String>,
    /// Layer 4 in the kernel. Implies `steer`.
    pub l4: Result<(), String>,
    /// External interfaces that layer 4 would attach to.
    pub interfaces: Vec<String>,
}

impl Capabilities {
    /// One line per feature, for logs and `pierhead status`.
    pub fn lines(&self) -> Vec<String> {
        let line = |what: &str, can: &Result<(), String>| match can {
            Ok(()) => format!("{what}: available"),
            Err(why) => format!("{what}: not available: {why}"),
        };
        vec![
            line("steering (sk_lookup)", &self.steer),
            line("layer 4 (tcx)", &self.l4),
        ]
    }
}

/// Probes without changing anything. `nics` as in [`crate::Options`].
pub fn probe(nics: &[String]) -> Capabilities {
    let kernel = kernel_version();
    let steer = steer(kernel);
    let mut interfaces = Vec::new();
    let l4 = steer.clone().and_then(|()| {
        if kernel < (6, 6) {
            return Err(format!("tcx needs Linux 6.6, this is {}.{}", kernel.0, kernel.1));
        }
        let mut netlink = Netlink::open().map_err(|error| format!("rtnetlink: {error}"))?;
        let external = surroundings::external(&mut netlink, nics).map_err(|error| error.to_string())?;
        interfaces = external.into_iter().map(|link| link.name).collect();
        if interfaces.is_empty() {
            return Err("no default route leaves by an Ethernet interface; fix: name one with --nic".to_owned());
        }
        Ok(())
    });
    Capabilities {
        kernel,
        steer,
        l4,
        interfaces,
    }
}

fn steer(kernel: (u32, u32)) -> Result<(), String> {
    // 5.9 has sk_lookup; our maps of maps with inner arrays of different sizes need 5.10.
    if kernel < (5, 10) {
        return Err(format!("it needs Linux 5.10, this is {}.{}", kernel.0, kernel.1));
    }
    let caps = rustix::thread::capabilities(None)
        .map_err(|error| format!("capabilities: {error}"))?
        .effective;
    if !caps.contains(CapabilitySet::SYS_ADMIN) {
        for (cap, name) in [
            (CapabilitySet::BPF, "CAP_BPF"),
            (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
            // Without it the verifier forbids comparing and spilling pointers the way compiled code does.
            (CapabilitySet::PERFMON, "CAP_PERFMON"),
        ] {
            if !caps.contains(cap) {
                return Err(format!(
                    "the process lacks {name}; fix: run it as root, or grant {name}"
                ));
            }
        }
    } else if !caps.contains(CapabilitySet::NET_ADMIN) {
        return Err("the process lacks CAP_NET_ADMIN; fix: run it as root, or grant it".to_owned());
    }
    if !pins::is_bpffs(Path::new(pins::BPFFS)) && !caps.contains(CapabilitySet::SYS_ADMIN) {
        return Err(format!(
            "no bpf file system at {0}, and mounting one needs CAP_SYS_ADMIN; fix: mount -t bpf bpf {0}",
            pins::BPFFS
        ));
    }
    Ok(())
}

fn kernel_version() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut parts = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}
