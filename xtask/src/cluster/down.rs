//! `down`: nothing is left but the programs and images, which the next `up` takes again.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::place::{Place, RUN};
use super::{daemon, mounts, net, tools};
use crate::sh::say;

/// # Errors
/// Something cannot be removed.
pub(crate) fn down(place: &Place) -> Result<()> {
    tools::need_root()?;
    wipe(place)?;
    say("cluster: down");
    Ok(())
}

/// Removes processes, mounts, namespaces, control groups and state, whatever of them is there.
///
/// # Errors
/// A process does not end, or something cannot be removed.
pub(crate) fn wipe(place: &Place) -> Result<()> {
    // The kubelets first, or they would start again what is killed after them. etcd and the API server need no
    // farewell: their data goes as well.
    let daemons: Vec<u32> = daemon::noted(place)
        .iter()
        .filter_map(|name| daemon::running(place, name))
        .collect();
    daemon::kill(&daemons)?;
    let contained = contained(&place.state())?;
    let groups = groups(&contained);
    daemon::kill(&contained)?;
    mounts::remove(&[Path::new(RUN), &place.state()])?;
    net::remove()?;
    remove_groups(groups);
    for folder in [Path::new(RUN), &place.state()] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// The processes in our containers, and the shims that hold them.
fn contained(state: &Path) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between here and there.
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        if is_shim(&String::from_utf8_lossy(&read("cmdline")))
            || has_root_in(&String::from_utf8_lossy(&read("mounts")), state)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether these are the arguments of a shim of ours: they carry our socket.
fn is_shim(line: &str) -> bool {
    let mut words = line.split('\0');
    words
        .next()
        .is_some_and(|program| program.ends_with("/containerd-shim-runc-v2"))
        && words.any(|word| word.starts_with(&format!("{RUN}/")))
}

/// Whether the mounts that a process sees begin with a root whose layers are in our state. A node itself mounts such
/// roots too, elsewhere.
fn has_root_in(mounts: &str, state: &Path) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.nth(1) == Some("/")
            && fields.next() == Some("overlay")
            && fields
                .next()
                .is_some_and(|options| options.contains(&format!("dir={}/", state.display())))
    })
}

/// The control groups of processes, of every hierarchy, each before the one it is in.
fn groups(pids: &[u32]) -> BTreeSet<Reverse<PathBuf>> {
    let hierarchies: Vec<PathBuf> = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .collect();
    let texts = pids
        .iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    let paths: BTreeSet<String> = texts.flat_map(|text| containers_groups(&text)).collect();
    let mut groups = BTreeSet::new();
    for path in paths {
        for hierarchy in &hierarchies {
            groups.insert(Reverse(hierarchy.join(&path)));
            groups.insert(Reverse(hierarchy.join(PARENT)));
        }
    }
    groups
}

/// Where containerd puts what the kubelet sends it.
const PARENT: &str = "k8s.io";

/// The groups of containers in a `/proc/PID/cgroup`, relative to the hierarchy.
fn containers_groups(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.splitn(3, ':').nth(2)?.strip_prefix('/'))
        .filter(|path| path.starts_with(&format!("{PARENT}/")))
        .map(str::to_owned)
        .collect()
}

/// A group goes once the kernel has forgotten its last process, a moment after its end. The parent stays when others
/// are in it.
fn remove_groups(mut left: BTreeSet<Reverse<PathBuf>>) {
    for _try in 0..40 {
        left.retain(|Reverse(group)| fs::remove_dir(group).is_err() && group.exists());
        if left.iter().all(|Reverse(group)| group.ends_with(PARENT)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    say(&format!("cluster: {} control groups could not be removed", left.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_ours_are_found() {
        let of = |socket: &str| format!("/x/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-address\0{socket}\0");
        assert!(is_shim(&of("/run/pierhead-lab/node-1/containerd.sock")));
        assert!(!is_shim(&of("/run/containerd/containerd.sock")));
        assert!(!is_shim("/x/bin/containerd\0--config\0/run/pierhead-lab/c.toml\0"));
    }

    #[test]
    fn only_containers_of_ours_are_found() {
        let root =
            |layers: &str| format!("overlay / overlay rw,lowerdir={layers},upperdir=/x 0 0\nproc /proc proc rw 0 0\n");
        let state = Path::new("/s/state");
        assert!(has_root_in(&root("/s/state/node-1/containerd/1/fs"), state));
        assert!(!has_root_in(&root("/s/states/fs"), state));
        let node = "ext4 / ext4 rw 0 0\noverlay /run/pierhead-lab/x overlay rw,lowerdir=/s/state/a 0 0\n";
        assert!(!has_root_in(node, state));
    }

    #[test]
    fn only_groups_of_containers_are_removed() {
        let text = "12:pids:/k8s.io/abc\n1:name=systemd:/\n0::/user.slice\n";
        assert_eq!(containers_groups(text), ["k8s.io/abc"]);
    }
}
