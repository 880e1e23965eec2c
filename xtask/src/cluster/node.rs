//! A node: containerd, kubelet and kube-proxy in the node's namespace, each with its own folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::daemon::{self, Daemon};
use super::images::PAUSE;
use super::place::{DNS_SERVICE, Host, Place, RUN, source};

/// The programs of a node, in the order in which they start. A daemon's name is the program's and the node's.
const PROGRAMS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

pub(crate) fn daemon_name(program: &str, node: &Host) -> String {
    format!("{program}-{}", node.name)
}

/// The names of the daemons of a node.
pub(crate) fn daemons(node: &Host) -> Vec<String> {
    PROGRAMS.iter().map(|program| daemon_name(program, node)).collect()
}

/// Writes the configuration of a node.
///
/// # Errors
/// A file cannot be read or written.
pub(crate) fn configure(place: &Place, node: &Host) -> Result<()> {
    let dir = place.node(node);
    fs::create_dir_all(dir.join("cni")).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::create_dir_all(Path::new(RUN).join(node.name)).with_context(|| format!("cannot make {RUN}"))?;
    for (template, file) in [
        ("containerd.toml", "containerd.toml"),
        ("kubelet.yaml", "kubelet.yaml"),
        ("kube-proxy.yaml", "kube-proxy.yaml"),
        ("pods.conflist", "cni/10-pods.conflist"),
    ] {
        let text = fs::read_to_string(source("config").join(template))
            .with_context(|| format!("cannot read tests/cluster/config/{template}"))?;
        let text = render(&text, &values(place, node)).with_context(|| format!("tests/cluster/config/{template}"))?;
        fs::write(dir.join(file), text).with_context(|| format!("cannot write {file} of {}", node.name))?;
    }
    Ok(())
}

/// Starts containerd, unless it runs, and waits until it answers.
///
/// # Errors
/// It ends, or does not answer.
pub(crate) fn start_containerd(place: &Place, node: &Host) -> Result<()> {
    let config = place.node(node).join("containerd.toml");
    let name = daemon_name("containerd", node);
    start(place, node, "containerd", format!("--config {}", config.display()))?;
    daemon::wait(place, &name, &[&name], Duration::from_secs(30), || {
        ctr(place, node)
            .arg("version")
            .output()
            .is_ok_and(|said| said.status.success())
    })
}

/// Starts the kubelet and kube-proxy, unless they run.
///
/// # Errors
/// One cannot be started.
pub(crate) fn start_kubelet(place: &Place, node: &Host) -> Result<()> {
    let dir = place.node(node);
    start(
        place,
        node,
        "kubelet",
        format!(
            "--config={dir}/kubelet.yaml --kubeconfig={} --hostname-override={} --node-ip={},{} --root-dir={dir}/kubelet",
            place.kubeconfig(node.name).display(),
            node.name,
            node.v4,
            node.v6,
            dir = dir.display(),
        ),
    )?;
    start(
        place,
        node,
        "kube-proxy",
        format!("--config={}/kube-proxy.yaml", dir.display()),
    )
}

/// `ctr` towards a node, in the namespace that the kubelet sees.
pub(crate) fn ctr(place: &Place, node: &Host) -> Command {
    let mut command = Command::new(place.bin("ctr"));
    command
        .args(["--address", &node.containerd_socket(), "--namespace", "k8s.io"])
        .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1");
    command
}

fn start(place: &Place, node: &Host, program: &'static str, args: String) -> Result<()> {
    Daemon {
        name: daemon_name(program, node),
        host: node.name,
        program,
        args: args.split_whitespace().map(str::to_owned).collect(),
        behind: false,
        env: &[],
    }
    .ensure(place)?;
    Ok(())
}

fn values(place: &Place, node: &Host) -> Vec<(&'static str, String)> {
    let shown = |path: std::path::PathBuf| path.display().to_string().trim_end_matches('/').to_owned();
    let pods = node.pods.as_ref();
    vec![
        ("node", node.name.to_owned()),
        ("node_dir", shown(place.node(node))),
        ("bin_dir", shown(place.bin(""))),
        ("pki", shown(place.pki(""))),
        ("run", format!("{RUN}/{}", node.name)),
        ("dns", DNS_SERVICE.to_owned()),
        ("pause", PAUSE.to_owned()),
        ("pods_v4", pods.map_or_else(String::new, |pods| pods.v4.to_owned())),
        ("pods_v6", pods.map_or_else(String::new, |pods| pods.v6.to_owned())),
    ]
}

/// Puts values in place of `{{name}}`.
fn render(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    if let Some((_, rest)) = text.split_once("{{") {
        bail!("no value for `{}`", rest.split("}}").next().unwrap_or(rest));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::place::nodes;
    use super::*;

    #[test]
    fn every_template_renders_for_every_node() {
        let place = Place::here();
        let mut seen = 0;
        for node in nodes() {
            for entry in fs::read_dir(source("config")).unwrap() {
                let path = entry.unwrap().path();
                let text = render(&fs::read_to_string(&path).unwrap(), &values(&place, node)).unwrap();
                assert!(!text.contains("{{"), "{}", path.display());
                seen += 1;
            }
        }
        assert_eq!(seen, 8);
    }

    #[test]
    fn a_name_without_a_value_is_told() {
        assert!(render("a {{x}} b", &[("y", String::new())]).is_err());
        assert_eq!(render("a {{x}} b", &[("x", "1".into())]).unwrap(), "a 1 b");
    }
}
