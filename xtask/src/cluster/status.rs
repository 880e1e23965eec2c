//! `status`: what runs and what does not.

use anyhow::{Result, bail};

use super::place::{HOSTS, Place, nodes};
use super::{api, control, daemon, net, node};

/// Prints the state of every part.
///
/// # Errors
/// A part does not run.
pub(crate) fn status(place: &Place) -> Result<()> {
    let mut wrong = Vec::new();
    let mut line = |what: &str, state: &str, good: bool| {
        println!("  {what:<24} {state}");
        if !good {
            wrong.push(what.to_owned());
        }
    };
    println!("{}", place.dir().display());
    let exists = net::exists();
    line("network", if exists { "there" } else { "missing" }, exists);
    let of_nodes: Vec<String> = nodes().flat_map(node::daemons).collect();
    let names = control::DAEMONS
        .iter()
        .copied()
        .chain(of_nodes.iter().map(String::as_str));
    for name in names {
        let pid = daemon::running(place, name);
        let shown = pid.map_or_else(|| "does not run".to_owned(), |pid| format!("process {pid}"));
        line(name, &shown, pid.is_some());
    }
    let ready = if control::is_ready(place) {
        api::ready_nodes(place)?
    } else {
        Vec::new()
    };
    for node in nodes() {
        let good = ready.iter().any(|name| name == node.name);
        line(node.name, if good { "Ready" } else { "not ready" }, good);
    }
    let answers = exists && nodes().all(|node| api::answers(node.name));
    line("DNS", if answers { "answers" } else { "no answer" }, answers);
    if !ready.is_empty() {
        let channel = api::channel(place)?;
        line(
            "Gateway API CRDs",
            channel.map_or("missing", api::Channel::as_str),
            channel.is_some(),
        );
    }
    if !wrong.is_empty() {
        bail!("not running: {}", wrong.join(", "));
    }
    for host in HOSTS {
        println!("  {:<24} {} {}", format!("exec {}", host.name), host.v4, host.v6);
    }
    println!("  KUBECONFIG={}", place.kubeconfig("admin").display());
    Ok(())
}
