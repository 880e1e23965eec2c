//! Where things of the cluster are: on disk, and in the network. Names and paths only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::sh;

/// Sockets and mounts of the nodes. Short, because a unix socket's path has 108 bytes at most.
pub(crate) const RUN: &str = "/run/pierhead-lab";

/// Says whose cluster it is.
const OWNER: &str = "owner";

pub(crate) const API_SERVER: &str = "https://10.250.0.1:6443";
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";

/// Where Gateways get their addresses. On-link on the fabric: whoever wants one asks by ARP or NDP.
pub(crate) const POOLS: [&str; 2] = ["10.200.0.0/24", "fd00:200::/112"];

/// A machine of the cluster: a network namespace with one NIC in the fabric.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// As the verbs take it.
    pub(crate) name: &'static str,
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
    /// The prefixes of its pods: nodes only.
    pub(crate) pods: Option<Pods>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pods {
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
}

pub(crate) const HOSTS: &[Host] = &[
    Host {
        name: "control",
        v4: "10.250.0.1",
        v6: "fd00:250::1",
        pods: None,
    },
    Host {
        name: "node-1",
        v4: "10.250.0.11",
        v6: "fd00:250::11",
        pods: Some(Pods {
            v4: "10.244.1.0/24",
            v6: "fd00:244:1::/64",
        }),
    },
    Host {
        name: "node-2",
        v4: "10.250.0.12",
        v6: "fd00:250::12",
        pods: Some(Pods {
            v4: "10.244.2.0/24",
            v6: "fd00:244:2::/64",
        }),
    },
    Host {
        name: "client",
        v4: "10.250.0.100",
        v6: "fd00:250::100",
        pods: None,
    },
];

/// The hosts that are nodes of Kubernetes.
pub(crate) fn nodes() -> impl Iterator<Item = &'static Host> {
    HOSTS.iter().filter(|host| host.pods.is_some())
}

impl Host {
    /// The name of its network namespace.
    pub(crate) fn netns(&self) -> String {
        netns(self.name)
    }

    /// Its namespace as a file.
    pub(crate) fn netns_path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns())
    }

    /// The file that holds a node's mounts; other hosts have those of the machine.
    pub(crate) fn mounts(&self) -> Option<PathBuf> {
        self.pods.as_ref()?;
        Some(Path::new(RUN).join(format!("{}.mnt", self.name)))
    }

    /// Where containerd of this node listens.
    pub(crate) fn containerd_socket(&self) -> String {
        format!("{RUN}/{}/containerd.sock", self.name)
    }
}

/// The host of a name.
pub(crate) fn host(name: &str) -> Option<&'static Host> {
    HOSTS.iter().find(|host| host.name == name)
}

/// The namespace of a host, by the host's name.
pub(crate) fn netns(host: &str) -> String {
    format!("pierhead-lab-{host}")
}

/// 107 less `/state/node-1/kubelet/device-plugins/kubelet.sock`.
const LONGEST: usize = 58;

/// The cluster's folder: binaries and images that stay, and the state of the running cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
}

impl Place {
    /// `PIERHEAD_CLUSTER_DIR`, or `cluster` in cargo's target folder.
    pub(crate) fn here() -> Self {
        let dir = std::env::var_os("PIERHEAD_CLUSTER_DIR").map_or_else(
            || sh::target_dir().join("cluster"),
            |dir| sh::root().join(PathBuf::from(dir)),
        );
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kubelet makes sockets deep below the folder, and the name of a socket has at most 107 bytes (unix(7)).
    ///
    /// # Errors
    /// The folder's own name leaves no room.
    pub(crate) fn check_length(&self) -> Result<()> {
        let length = self.dir.as_os_str().len();
        if length > LONGEST {
            bail!(
                "{} has {length} characters, and sockets below it need a name of at most {LONGEST}: set \
                 PIERHEAD_CLUSTER_DIR to a folder with a shorter one",
                self.dir.display()
            );
        }
        Ok(())
    }

    /// Notes that the cluster on this machine is ours. Gone with the cluster.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(crate) fn claim(&self) -> Result<()> {
        fs::write(Path::new(RUN).join(OWNER), self.dir.as_os_str().as_encoded_bytes())
            .context("cannot claim the cluster")
    }

    /// Whose the cluster on this machine is, when it is that of another folder: the names of namespaces are the
    /// machine's, so there is one.
    pub(crate) fn other(&self) -> Option<Self> {
        self.other_than(Path::new(RUN))
    }

    fn other_than(&self, run: &Path) -> Option<Self> {
        let dir = PathBuf::from(fs::read_to_string(run.join(OWNER)).ok()?);
        (dir != self.dir).then_some(Self { dir })
    }

    /// # Errors
    /// The cluster on this machine is that of another folder.
    pub(crate) fn check_owner(&self) -> Result<()> {
        match self.other() {
            Some(Self { dir }) => {
                let dir = dir.display();
                bail!("the cluster on this machine is that of {dir}: set PIERHEAD_CLUSTER_DIR={dir}")
            }
            None => Ok(()),
        }
    }

    /// A program: built once, kept over `down`.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// An image archive: made once, kept over `down`.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.dir.join("images").join(format!("{name}.tar"))
    }

    /// What the running cluster wrote: removed by `down`.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.state().join("pki").join(file)
    }

    pub(crate) fn log(&self, daemon: &str) -> PathBuf {
        self.state().join("log").join(format!("{daemon}.log"))
    }

    pub(crate) fn pid(&self, daemon: &str) -> PathBuf {
        self.state().join("pid").join(daemon)
    }

    /// The kubeconfig of a role: `admin` is for people and tests.
    pub(crate) fn kubeconfig(&self, role: &str) -> PathBuf {
        if role == "admin" {
            return self.state().join("kubeconfig");
        }
        self.state().join("pki").join(format!("{role}.kubeconfig"))
    }

    /// A node's own folder.
    pub(crate) fn node(&self, host: &Host) -> PathBuf {
        self.state().join(host.name)
    }
}

/// The sources of the cluster in the repository: `tests/cluster`.
pub(crate) fn source(path: &str) -> PathBuf {
    sh::root().join("tests/cluster").join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_folder_is_another_owner() {
        let run = tempfile::tempdir().unwrap();
        let of = |dir: &str| Place { dir: dir.into() };
        assert!(of("/a").other_than(run.path()).is_none(), "there is no cluster");
        fs::write(run.path().join(OWNER), "/a").unwrap();
        assert!(of("/a").other_than(run.path()).is_none());
        assert_eq!(of("/b").other_than(run.path()).unwrap().dir(), Path::new("/a"));
    }

    #[test]
    fn a_folder_that_leaves_no_room_for_sockets_is_refused() {
        let of = |length: usize| {
            let dir = format!("/{}", "x".repeat(length - 1)).into();
            Place { dir }.check_length()
        };
        assert!(of(LONGEST).is_ok());
        let error = of(LONGEST + 1).unwrap_err().to_string();
        assert!(error.contains("PIERHEAD_CLUSTER_DIR"), "{error}");
        assert_eq!(LONGEST + "/state/node-1/kubelet/device-plugins/kubelet.sock".len(), 107);
    }
}
