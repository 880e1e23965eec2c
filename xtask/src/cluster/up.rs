//! `up`: from nothing, or from whatever runs, to Ready nodes, DNS and the CRDs.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use super::api::{self, Channel};
use super::place::Place;
use super::{binaries, control, daemon, down, images, mounts, net, node, pki, tools};
use crate::sh::say;

/// Brings the cluster up. What runs stays as it is, also the channel of its CRDs unless one is named.
///
/// # Errors
/// Something is missing, does not build, or does not become ready.
pub(crate) fn up(place: &Place, channel: Option<Channel>) -> Result<()> {
    tools::install()?;
    binaries::build(place)?;
    images::make(place)?;
    let started = Instant::now();
    let step = |what: &str| say(&format!("cluster: {:>5.1} s  {what}", started.elapsed().as_secs_f32()));
    if !net::exists() || !place.kubeconfig("admin").exists() || !daemon::any_runs(place) {
        // What a reboot, a crash or an older version left would be in the way.
        down::wipe(place)?;
        prepare(place)?;
        step("namespaces and certificates");
    }
    std::thread::scope(|scope| {
        let nodes = scope.spawn(|| {
            images::each_node(|node| {
                node::start_containerd(place, node)?;
                images::import_own(place, node)
            })
        });
        control::start(place)?;
        step("API server ready");
        nodes
            .join()
            .unwrap_or_else(|_panic| Err(anyhow::anyhow!("a node panicked")))?;
        step("images in both nodes");
        images::each_node(|node| node::start_kubelet(place, node))
    })?;
    let wanted = channel.or(api::channel(place)?).unwrap_or(Channel::Experimental);
    api::crds(place, wanted)?;
    step(&format!("Gateway API {} CRDs", wanted.as_str()));
    api::wait_nodes(place)?;
    step("both nodes Ready");
    api::dns(place)?;
    step("DNS answers");
    say(&format!(
        "cluster: up; KUBECONFIG={}",
        place.kubeconfig("admin").display()
    ));
    Ok(())
}

fn prepare(place: &Place) -> Result<()> {
    for folder in ["log", "pid"] {
        fs::create_dir_all(place.state().join(folder)).context("cannot make the folder of the cluster's state")?;
    }
    net::make()?;
    mounts::make(place)?;
    pki::make(place)?;
    for node in super::place::nodes() {
        node::configure(place, node)?;
    }
    Ok(())
}
