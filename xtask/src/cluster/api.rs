//! What goes through the API server: nodes, CoreDNS, the CRDs of the Gateway API.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::daemon;
use super::place::{DNS_SERVICE, Place, nodes, source};
use super::{binaries, net, tools};
use crate::sh::{self, say};

/// The module that holds the CRDs, pinned beside the suite of the same version.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";

/// Says on each CRD which channel it is of.
const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// A channel of the Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Experimental,
    Standard,
}

impl Channel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Experimental => "experimental",
            Self::Standard => "standard",
        }
    }

    /// # Errors
    /// There is no such channel.
    pub(crate) fn parse(word: &str) -> Result<Self> {
        match word {
            "experimental" => Ok(Self::Experimental),
            "standard" => Ok(Self::Standard),
            _ => bail!("no channel `{word}`: there are experimental and standard"),
        }
    }
}

/// `kubectl` as administrator.
pub(crate) fn kubectl(place: &Place) -> Command {
    let mut command = Command::new(place.bin("kubectl"));
    command.env("KUBECONFIG", place.kubeconfig("admin"));
    command
}

/// Waits until every node is Ready.
///
/// # Errors
/// One is not within two minutes: a kubelet that missed the API server for long looks again ever more seldom.
pub(crate) fn wait_nodes(place: &Place) -> Result<()> {
    let names: Vec<&str> = nodes().map(|node| node.name).collect();
    let daemons: Vec<String> = nodes().flat_map(super::node::daemons).collect();
    let daemons: Vec<&str> = daemons.iter().map(String::as_str).collect();
    daemon::wait(place, "a Ready node", &daemons, Duration::from_secs(120), || {
        ready_nodes(place).is_ok_and(|ready| names.iter().all(|name| ready.iter().any(|it| it == name)))
    })
}

/// The names of the nodes that are Ready.
///
/// # Errors
/// The API server does not answer.
pub(crate) fn ready_nodes(place: &Place) -> Result<Vec<String>> {
    let template = "{range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let text = sh::output(kubectl(place).args(["get", "nodes", "-o", &format!("jsonpath={template}")]))?;
    Ok(text
        .lines()
        .filter_map(|line| Some(line.strip_suffix(" True")?.to_owned()))
        .collect())
}

/// Applies CoreDNS and waits until it answers through its Service on every node.
///
/// # Errors
/// It does not within a minute.
pub(crate) fn dns(place: &Place) -> Result<()> {
    sh::output(
        kubectl(place)
            .args(["apply", "--server-side", "--force-conflicts", "-f"])
            .arg(source("manifests/coredns.yaml")),
    )?;
    daemon::wait(place, "DNS", &[], Duration::from_secs(60), || {
        nodes().all(|node| answers(node.name))
    })
}

/// Whether the name of the DNS Service itself resolves inside a host.
pub(crate) fn answers(host: &str) -> bool {
    // A question for the A record of kube-dns.kube-system.svc.cluster.local, and the end of its answer. No byte of the
    // question is a line feed, at which bash would begin another datagram.
    let ask = format!(
        "exec 3<>/dev/udp/{DNS_SERVICE}/53; \
         printf '\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x08kube-dns\\x0bkube-system\\x03svc\\x07cluster\\x05local\\x00\\x00\\x01\\x00\\x01' >&3; \
         timeout 1 dd bs=512 count=1 <&3"
    );
    net::enter(host)
        .args(["bash", "-c", &ask])
        .output()
        .is_ok_and(|said| said.stdout.starts_with(b"\x12\x34") && said.stdout.ends_with(&[10, 96, 0, 10]))
}

/// The channel whose CRDs are installed.
///
/// # Errors
/// The API server does not answer.
pub(crate) fn channel(place: &Place) -> Result<Option<Channel>> {
    let path = format!("jsonpath={{.metadata.annotations.{}}}", CHANNEL.replace('.', "\\."));
    let crd = "customresourcedefinition/gateways.gateway.networking.k8s.io";
    let text = sh::output(kubectl(place).args(["get", crd, "--ignore-not-found", "-o", &path]))?;
    Some(text.trim())
        .filter(|text| !text.is_empty())
        .map(Channel::parse)
        .transpose()
}

/// Installs the CRDs of a channel. Those of another are removed first, and every Gateway and route with them: the suite
/// refuses a mixture.
///
/// # Errors
/// Go cannot bring them, or the API server refuses them.
pub(crate) fn crds(place: &Place, channel: Channel) -> Result<()> {
    let installed = self::channel(place)?;
    if installed == Some(channel) {
        return Ok(());
    }
    if installed.is_some() {
        say(&format!(
            "cluster: changing to {} CRDs; every object of the old ones goes",
            channel.as_str()
        ));
        let crds = sh::output(kubectl(place).args(["get", "crds", "-o", "name"]))?;
        let old: Vec<&str> = crds
            .lines()
            .filter(|name| {
                name.ends_with(".gateway.networking.k8s.io") || name.ends_with(".gateway.networking.x-k8s.io")
            })
            .collect();
        sh::output(kubectl(place).arg("delete").args(old))?;
    }
    let folder = crd_folder(channel)?;
    // Server-side: the annotation of a client-side apply has no room for a CRD.
    let mut apply = kubectl(place);
    apply.args(["apply", "--server-side", "--force-conflicts"]);
    for file in crd_files(&folder)? {
        apply.arg("-f").arg(file);
    }
    sh::output(&mut apply)?;
    sh::output(kubectl(place).args(["wait", "--for=condition=Established", "--all", "crd", "--timeout=30s"]))?;
    Ok(())
}

/// Where the CRDs of a channel are.
///
/// # Errors
/// Go cannot bring them.
pub(crate) fn crd_folder(channel: Channel) -> Result<PathBuf> {
    let module = tools::module_dir(&binaries::suite_module(), GATEWAY_API)?;
    Ok(module.join("config/crd").join(channel.as_str()))
}

fn crd_files(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_crd(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    files.sort();
    if files.is_empty() {
        bail!("no CRDs in {}", folder.display());
    }
    Ok(files)
}

/// Not the policy that forbids to change the channel, which is what we do.
fn is_crd(file: &str) -> bool {
    file.starts_with("gateway.") && file.ends_with(".yaml") && !file.contains("_vap_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_a_change_of_channel_is_left_out() {
        assert!(is_crd("gateway.networking.k8s.io_gateways.yaml"));
        assert!(is_crd("gateway.networking.x-k8s.io_xbackends.yaml"));
        assert!(!is_crd("gateway.networking.k8s.io_vap_safeupgrades.yaml"));
        assert!(!is_crd("kustomization.yaml"));
    }

    #[test]
    fn a_channel_is_what_it_is_called() {
        for channel in [Channel::Experimental, Channel::Standard] {
            assert_eq!(Channel::parse(channel.as_str()).unwrap(), channel);
        }
        assert!(Channel::parse("beta").is_err());
    }
}
