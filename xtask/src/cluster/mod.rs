//! `cluster`: a real Kubernetes cluster in network namespaces of this machine. `tests/cluster/README.md` shows it.

pub(crate) mod api;
pub(crate) mod binaries;
mod control;
mod daemon;
mod down;
pub(crate) mod images;
pub(crate) mod install;
pub(crate) mod lock;
mod mounts;
pub(crate) mod net;
mod node;
mod pki;
pub(crate) mod place;
pub(crate) mod stage;
mod status;
mod tools;
mod up;

use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;
use api::Channel;
use place::Place;

const HELP: &str = "\
cargo xtask cluster <verb>
  up [--channel experimental|standard]   build what is missing, start what does not run, wait until it works
  down                                   stop and remove everything but the built programs and images
  status                                 what runs; fails unless all of it does
  kubectl WORDS…                         kubectl as administrator
  load IMAGE.tar…                        import images into both nodes
  install [--ebpf MODE] [HELM FLAGS…]    install Pierhead with its chart, or upgrade to the image that is loaded now
  uninstall                              remove it
  exec HOST -- WORDS…                    run in a namespace: client, node-1, node-2 or control
  faults [NAME…]                         what goes wrong under constant load, and how many requests each cost
PIERHEAD_CLUSTER_DIR says where programs and state are; by default in `cluster` of cargo's target folder.";

pub(crate) fn run(args: &[String]) -> Result<()> {
    let place = Place::here();
    let Some((verb, rest)) = args.split_first() else {
        println!("{HELP}");
        return Ok(());
    };
    if verb == "up" {
        return ensure(&place, wanted_channel(rest)?);
    }
    place.check_owner()?;
    match verb.as_str() {
        "down" if rest.is_empty() => {
            let _lock = lock::take(&place)?;
            down::down(&place)
        }
        "status" if rest.is_empty() => status::status(&place),
        "kubectl" => become_it(api::kubectl(&place).args(rest)),
        "load" => rest
            .iter()
            .try_for_each(|archive| images::load(&place, Path::new(archive))),
        "install" => match rest {
            [flag, mode, more @ ..] if flag == "--ebpf" => install::pierhead(&place, mode, more),
            more => install::pierhead(&place, "full", more),
        },
        "uninstall" if rest.is_empty() => install::remove(&place),
        "exec" => exec(&place, rest),
        "faults" => faults(rest),
        _ => {
            println!("{HELP}");
            bail!("`cluster` does not know `{}`", args.join(" "))
        }
    }
}

/// Brings the cluster up for another verb, as `up` does.
///
/// # Errors
/// It does not come up.
pub(crate) fn ensure(place: &Place, channel: Option<Channel>) -> Result<()> {
    place.check_length()?;
    remove_stale(place)?;
    let _lock = lock::take(place)?;
    up::up(place, channel)
}

/// Removes the cluster of another folder when none of its programs runs: a crash or a kill left its namespaces, which
/// would be in the way.
///
/// # Errors
/// It runs; or something of it cannot be removed.
fn remove_stale(place: &Place) -> Result<()> {
    let Some(other) = place.other() else {
        return Ok(());
    };
    // Its folder may be gone as well, and is not made again for a lock.
    let _lock = other.dir().exists().then(|| lock::take(&other)).transpose()?;
    if daemon::any_runs(&other) {
        return place.check_owner();
    }
    sh::say(&format!(
        "cluster: removing what is left of that of {}, of which nothing runs",
        other.dir().display()
    ));
    down::wipe(&other)
}

fn wanted_channel(args: &[String]) -> Result<Option<Channel>> {
    match args {
        [] => Ok(None),
        [flag, channel] if flag == "--channel" => Channel::parse(channel).map(Some),
        _ => bail!("`cluster up` knows only --channel experimental|standard"),
    }
}

/// Whether the API server answers on a network that exists.
pub(crate) fn is_up(place: &Place) -> bool {
    net::exists() && control::is_ready(place)
}

/// Removes the cluster for another verb, as `down` does.
///
/// # Errors
/// Something stays.
pub(crate) fn remove(place: &Place) -> Result<()> {
    let _lock = lock::take(place)?;
    down::down(place)
}

fn faults(names: &[String]) -> Result<()> {
    let mut cargo = sh::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--package",
        "pierhead-cluster",
        "--bin",
        "pierhead-faults",
        "--",
    ]);
    become_it(cargo.args(names))
}

fn exec(place: &Place, args: &[String]) -> Result<()> {
    let (host, words) = match args {
        [host, dashes, words @ ..] if dashes == "--" && !words.is_empty() => (host, words),
        [host, words @ ..] if !words.is_empty() => (host, words),
        _ => bail!("cluster exec HOST -- WORDS…"),
    };
    if place::host(host).is_none() {
        bail!("no host `{host}`: there are client, node-1, node-2 and control");
    }
    become_it(
        net::enter(host)
            .args(words)
            .env("KUBECONFIG", place.kubeconfig("admin")),
    )
}

/// Becomes the command: its exit status and signals are ours.
fn become_it(command: &mut std::process::Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec()).map_err(|error: std::io::Error| {
        anyhow::anyhow!("cannot start {}: {error}", command.get_program().to_string_lossy())
    })
}
