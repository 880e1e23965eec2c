//! The network: one fabric that every host has a NIC in, each host a namespace of its own.
//!
//! The machine itself has a NIC there too, so that kubectl reaches the API server. The pools are on-link for all but
//! the control plane: an address of a Gateway exists when somebody answers for it. Nothing leads out: what no route of
//! the cluster covers ends at the control plane as unreachable.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::place::{HOSTS, Host, POOLS, host, netns, nodes};
use crate::sh;

/// The NIC of the machine itself in the fabric.
const UPLINK: &str = "pierhead-lab";
const UPLINK_V4: &str = "10.250.0.254/24";
const UPLINK_V6: &str = "fd00:250::fe/64";

const FABRIC: &str = "fabric";

/// Whether the fabric and every host exist.
pub(crate) fn exists() -> bool {
    HOSTS.iter().all(|host| host.netns_path().exists()) && Path::new("/sys/class/net").join(UPLINK).exists()
}

/// Makes the fabric and the hosts.
///
/// # Errors
/// Something of the names exists already, or the kernel lacks a piece.
pub(crate) fn make() -> Result<()> {
    add_namespace(FABRIC, false)?;
    ip(
        Some(FABRIC),
        "link add fabric type bridge forward_delay 0 mcast_snooping 0\nlink set fabric up\n",
    )?;
    let fabric = netns(FABRIC);
    ip(
        None,
        &format!("link add {UPLINK} type veth peer name {UPLINK} netns {fabric}\n"),
    )?;
    ip(
        Some(FABRIC),
        &format!("link set {UPLINK} master fabric\nlink set {UPLINK} up\n"),
    )?;
    ip(None, &uplink_lines())?;
    for host in HOSTS {
        add_namespace(host.name, host.pods.is_some() || host.name == "control")?;
        ip(
            Some(FABRIC),
            &format!(
                "link add {0} type veth peer name eth0 netns {1}\nlink set {0} master fabric\nlink set {0} up\n",
                host.name,
                host.netns()
            ),
        )?;
        ip(Some(host.name), &host_lines(host))?;
    }
    Ok(())
}

/// Removes them. Missing pieces are fine.
///
/// # Errors
/// A namespace cannot be removed.
pub(crate) fn remove() -> Result<()> {
    for name in HOSTS.iter().map(|host| host.name).chain([FABRIC]) {
        let path = Path::new("/run/netns").join(netns(name));
        if path.exists() {
            ip(None, &format!("netns del {}\n", netns(name)))?;
        }
    }
    if Path::new("/sys/class/net").join(UPLINK).exists() {
        // It goes with its peer, a moment after the namespace; whichever is first.
        let _ = ip(None, &format!("link del {UPLINK}\n"));
    }
    Ok(())
}

fn add_namespace(name: &str, forwards: bool) -> Result<()> {
    ip(None, &format!("netns add {}\n", netns(name)))?;
    let forwarding = u8::from(forwards);
    let values = [
        // Addresses are ours to give: no waiting for a duplicate.
        "net.ipv6.conf.all.accept_dad=0".to_owned(),
        "net.ipv6.conf.default.accept_dad=0".to_owned(),
        "net.ipv6.conf.all.disable_ipv6=0".to_owned(),
        "net.ipv6.conf.default.disable_ipv6=0".to_owned(),
        "net.ipv6.conf.all.accept_ra=0".to_owned(),
        "net.ipv6.conf.default.accept_ra=0".to_owned(),
        "net.ipv4.conf.all.rp_filter=0".to_owned(),
        "net.ipv4.conf.default.rp_filter=0".to_owned(),
        format!("net.ipv4.ip_forward={forwarding}"),
        format!("net.ipv6.conf.all.forwarding={forwarding}"),
    ];
    let namespace = format!("--net=/run/netns/{}", netns(name));
    sh::output(
        Command::new("nsenter")
            .arg(namespace)
            .args(["sysctl", "-q", "-w"])
            .args(values),
    )?;
    ip(Some(name), "link set lo up\n")
}

fn uplink_lines() -> String {
    let mut lines =
        format!("link set {UPLINK} up\naddr add {UPLINK_V4} dev {UPLINK}\naddr add {UPLINK_V6} dev {UPLINK} nodad\n");
    lines.push_str(&pool_routes(UPLINK));
    lines.push_str(&pod_routes(None));
    lines
}

fn host_lines(host: &Host) -> String {
    let mut lines = format!(
        "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
        host.v4, host.v6
    );
    if host.name == "control" {
        lines.push_str("route add unreachable default metric 9999\nroute add unreachable ::/0 metric 9999\n");
    } else {
        lines.push_str(&pool_routes("eth0"));
    }
    if host.pods.is_some() {
        let control = &HOSTS[0];
        lines.push_str(&format!(
            "route add default via {}\nroute add ::/0 via {}\n",
            control.v4, control.v6
        ));
    }
    // The client is outside: it knows no pod.
    if host.name != "client" {
        lines.push_str(&pod_routes(Some(host)));
    }
    lines
}

fn pool_routes(nic: &str) -> String {
    format!("route add {} dev {nic}\nroute add {} dev {nic}\n", POOLS[0], POOLS[1])
}

/// Routes to the pods of every node but `except`.
fn pod_routes(except: Option<&Host>) -> String {
    nodes()
        .filter(|node| Some(*node) != except)
        .filter_map(|node| {
            let pods = node.pods.as_ref()?;
            Some(format!(
                "route add {} via {}\nroute add {} via {}\n",
                pods.v4, node.v4, pods.v6, node.v6
            ))
        })
        .collect()
}

/// A command inside a host, with a node's own mounts. Not `ip netns exec`, which would hide the control groups.
pub(crate) fn enter(name: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(entrance(name));
    command
}

/// The words for `nsenter` that lead into a host.
pub(crate) fn entrance(name: &str) -> Vec<String> {
    let mounts = host(name).and_then(Host::mounts);
    std::iter::once(format!("--net=/run/netns/{}", netns(name)))
        .chain(mounts.map(|file| format!("--mount={}", file.display())))
        .collect()
}

/// Runs lines of `ip` inside a host or on the machine.
fn ip(inside: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = inside {
        command.args(["-n", &netns(name)]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`")?;
    child
        .stdin
        .take()
        .context("`ip` without an input")?
        .write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "`ip` in {}: {}: {}",
            inside.unwrap_or("the machine"),
            lines.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reaches_the_pods_of_the_other_and_the_pools() {
        let lines = host_lines(&HOSTS[1]);
        assert!(lines.contains("route add 10.244.2.0/24 via 10.250.0.12\n"), "{lines}");
        assert!(!lines.contains("10.244.1.0/24"), "{lines}");
        assert!(lines.contains("route add 10.200.0.0/24 dev eth0\n"), "{lines}");
    }

    #[test]
    fn the_client_is_outside() {
        let lines = host_lines(HOSTS.iter().find(|host| host.name == "client").unwrap());
        assert!(!lines.contains("10.244"), "{lines}");
        assert!(!lines.contains("default"), "{lines}");
        assert!(lines.contains("route add fd00:200::/112 dev eth0\n"), "{lines}");
    }
}
