//! Images without a registry: archives made here, imported into the nodes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::node::ctr;
use super::place::{Host, Place, nodes, source};
use crate::oci::{self, Image};
use crate::sh::{self, say};

/// What keeps a pod's namespaces open.
pub(crate) const PAUSE: &str = "pierhead.dev/lab/pause:1";

/// An image of the cluster's own: its archive, its names, the program that is all of it.
type Own = (&'static str, &'static [&'static str], &'static str, &'static str);

const OWN: &[Own] = &[
    ("pause", &[PAUSE], "pause", "65535:65535"),
    ("coredns", &["pierhead.dev/lab/coredns:v1.14.7"], "coredns", "0"),
    // The names in the suite's manifests.
    (
        "echo-basic",
        &[
            "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0",
            "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
        ],
        "echo-basic",
        "65532:65532",
    ),
];

/// Makes the archives that are missing or older than their program.
///
/// # Errors
/// The C compiler fails, or a file cannot be written.
pub(crate) fn make(place: &Place) -> Result<()> {
    let pause = source("images/pause.c");
    if is_older(&place.bin("pause"), &pause) {
        let mut cc = Command::new("cc");
        cc.args(["-static", "-Os", "-s", "-o"])
            .arg(place.bin("pause"))
            .arg(&pause);
        sh::output(&mut cc).context("the pause program does not build")?;
    }
    for &(archive, names, program, user) in OWN {
        let from = place.bin(program);
        let to = place.image(archive);
        if is_older(&to, &from) {
            let path = format!("/{program}");
            let image = Image {
                names,
                entrypoint: &[&path],
                user,
                files: &[(&path, &from, 0o755)],
            };
            oci::write(&image, &to)?;
        }
    }
    Ok(())
}

/// Imports the cluster's own images into a node that does not have them.
///
/// # Errors
/// containerd refuses one.
pub(crate) fn import_own(place: &Place, node: &Host) -> Result<()> {
    let present = sh::output(ctr(place, node).args(["images", "list", "-q"]))?;
    for &(archive, names, ..) in OWN {
        if !names.iter().all(|name| present.lines().any(|line| line == *name)) {
            import(place, node, &place.image(archive))?;
        }
    }
    Ok(())
}

/// Imports an archive into every node, all at a time.
///
/// # Errors
/// containerd of a node refuses it.
pub(crate) fn load(place: &Place, archive: &Path) -> Result<()> {
    each_node(|node| import(place, node, archive))?;
    say(&format!(
        "cluster: loaded {} into {}",
        archive.display(),
        nodes().map(|node| node.name).collect::<Vec<_>>().join(" and ")
    ));
    Ok(())
}

/// Runs `work` for every node at a time.
///
/// # Errors
/// The first of what went wrong.
pub(crate) fn each_node(work: impl Fn(&'static Host) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = nodes().map(|node| (node, scope.spawn(move || work(node)))).collect();
        threads.into_iter().try_for_each(|(node, thread)| {
            thread
                .join()
                .unwrap_or_else(|_panic| Err(anyhow!("panicked")))
                .with_context(|| node.name.to_owned())
        })
    })
}

/// What an image holds, as a word that changes with it: the beginning of its digest.
///
/// # Errors
/// The first node does not have the image, or containerd does not answer.
pub(crate) fn content(place: &Place, name: &str) -> Result<String> {
    let node = nodes().next().context("no node")?;
    let listed = sh::output(ctr(place, node).args(["images", "list", &format!("name=={name}")]))?;
    digest(&listed).with_context(|| format!("no image {name} is loaded: `cargo xtask image --load` makes and loads it"))
}

fn digest(listed: &str) -> Option<String> {
    let (_, rest) = listed.split_once("sha256:")?;
    Some(rest.chars().take_while(char::is_ascii_hexdigit).take(12).collect())
}

fn import(place: &Place, node: &Host, archive: &Path) -> Result<()> {
    let mut command = ctr(place, node);
    command.args(["images", "import", "--local"]).arg(archive);
    sh::output(&mut command).map(|_said| ())
}

/// Whether a file is missing, or older than what it is made from.
fn is_older(made: &Path, from: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    match (time(made), time(from)) {
        (Some(made), Some(from)) => made < from,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_content_is_read_from_the_list() {
        let listed = "REF TYPE DIGEST SIZE\na/b:1 application/x sha256:0123456789abcdef 3 MiB\n";
        assert_eq!(digest(listed).as_deref(), Some("0123456789ab"));
        assert_eq!(digest("REF TYPE DIGEST SIZE\n"), None);
    }
}
