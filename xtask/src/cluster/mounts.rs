//! The mounts of the nodes: each has a mount namespace, in which the bpf file system and what programs keep at fixed
//! places are its own, as on a machine of its own. What a node mounts is gone with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::place::{Place, RUN, nodes};
use crate::sh;

/// Where programs keep things at fixed places: empty in a node, and nothing of the cluster may be there. containerd's
/// shims have their sockets in the last, whatever containerd is told.
const OWN: [&str; 3] = ["/var/lib", "/var/log", CONTAINERD];
const CONTAINERD: &str = "/run/containerd";

/// Run inside a new namespace. The named network namespaces of others would live as long as the node does. Shared, as
/// systemd makes it: pods may ask for propagation.
const INSIDE: &str = r#"
set -e
umount -R -l /run/netns 2>/dev/null || true
for at in /run/netns/*; do umount -l "$at" 2>/dev/null || true; done
for at in "$@"; do mount -t tmpfs -o mode=755 pierhead-lab "$at"; done
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /"#;

/// Makes the folder of the running nodes and their mount namespaces.
///
/// # Errors
/// The kernel refuses a mount, or the cluster's folder is where a node hides it.
pub(crate) fn make(place: &Place) -> Result<()> {
    if let Some(own) = OWN.iter().find(|own| place.dir().starts_with(own)) {
        bail!("the cluster's folder cannot be below {own}: set PIERHEAD_CLUSTER_DIR");
    }
    fs::create_dir_all(CONTAINERD).with_context(|| format!("cannot make {CONTAINERD}"))?;
    fs::create_dir_all(RUN).with_context(|| format!("cannot make {RUN}"))?;
    // Private, or the kernel does not let a mount namespace be named by a file in it.
    sh::output(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "pierhead-lab", RUN]))?;
    sh::output(Command::new("mount").args(["--make-private", RUN]))?;
    place.claim()?;
    for node in nodes() {
        let Some(file) = node.mounts() else { continue };
        fs::write(&file, "").with_context(|| format!("cannot make {}", file.display()))?;
        sh::output(
            Command::new("unshare")
                .arg(format!("--mount={}", file.display()))
                .args(["--propagation", "private", "bash", "-c", INSIDE, "bash"])
                .args(OWN),
        )?;
    }
    Ok(())
}

/// Unmounts everything below the folders, the deepest first.
///
/// # Errors
/// `umount` fails.
pub(crate) fn remove(folders: &[&Path]) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut below = mounts_below(&mounts, folders);
    below.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in below {
        sh::output(Command::new("umount").args(["-l", "--", &path]))?;
    }
    // Only when it is empty: another containerd may use it.
    let _ = fs::remove_dir(CONTAINERD);
    Ok(())
}

fn mounts_below(mounts: &str, folders: &[&Path]) -> Vec<String> {
    mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|path| path.replace("\\040", " "))
        .filter(|path| folders.iter().any(|folder| Path::new(path).starts_with(folder)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_ours_are_found() {
        let mounts = "tmpfs /run tmpfs rw 0 0\nnsfs /run/pierhead-lab/node-1.mnt nsfs rw 0 0\n\
                      a /s/state/b\\040c tmpfs rw 0 0\nb /s/states tmpfs rw 0 0\n";
        assert_eq!(
            mounts_below(mounts, &[Path::new(RUN), Path::new("/s/state")]),
            ["/run/pierhead-lab/node-1.mnt", "/s/state/b c"]
        );
    }
}
