//! The control plane: etcd, API server, controller manager, scheduler, in a namespace of their own.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::daemon::{self, Daemon};
use super::place::{HOSTS, Place};

/// In the order in which they start.
pub(crate) const DAEMONS: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Starts what does not run.
///
/// # Errors
/// A program cannot be started.
pub(crate) fn start(place: &Place) -> Result<()> {
    for &name in DAEMONS {
        let daemon = Daemon {
            name: name.to_owned(),
            host: "control",
            program: name,
            args: args(place, name),
            // In a cluster the control plane has cores of its own. Here it shares two with nodes, pods and clients: it has what they
            // leave, and does not keep what serves a request from its core.
            behind: true,
            env: env(name),
        };
        daemon.ensure(place)?;
        if name == "kube-apiserver" {
            wait_ready(place)?;
        }
    }
    Ok(())
}

/// Whether the API server says that it is ready.
pub(crate) fn is_ready(place: &Place) -> bool {
    Command::new(place.bin("kubectl"))
        .arg("--kubeconfig")
        .arg(place.kubeconfig("admin"))
        .args(["get", "--raw", "/readyz", "--request-timeout", "5s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn wait_ready(place: &Place) -> Result<()> {
    daemon::wait(place, "the API server", &DAEMONS[..2], Duration::from_secs(60), || {
        is_ready(place)
    })
}

/// The API server's garbage collector takes whatever is idle, for a tenth of a second at a time. Memory, of which there is
/// enough, makes that seldom.
fn env(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "kube-apiserver" => &[("GOGC", "1000"), ("GOMEMLIMIT", "6GiB")],
        _ => &[],
    }
}

fn args(place: &Place, name: &str) -> Vec<String> {
    let pki = |file: &str| place.pki(file).display().to_string();
    let address = HOSTS[0].v4;
    let words = match name {
        "etcd" => format!(
            "--data-dir={} --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
             --listen-peer-urls=http://127.0.0.1:2380 --unsafe-no-fsync --quota-backend-bytes=4294967296 --log-level=warn",
            place.state().join("etcd").display()
        ),
        "kube-apiserver" => format!(
            "--etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.96.0.0/16,fd00:96::/112 \
             --service-account-issuer=https://kubernetes.default.svc.cluster.local \
             --service-account-signing-key-file={sa} --service-account-key-file={sa} \
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --client-ca-file={ca} \
             --tls-cert-file={crt} --tls-private-key-file={key} \
             --kubelet-client-certificate={admin_crt} --kubelet-client-key={admin_key} \
             --allow-privileged=true --bind-address=:: --advertise-address={address} \
             --kubelet-preferred-address-types=InternalIP",
            sa = pki("sa.key"),
            ca = pki("ca.crt"),
            crt = pki("kube-apiserver.crt"),
            key = pki("kube-apiserver.key"),
            admin_crt = pki("admin.crt"),
            admin_key = pki("admin.key"),
        ),
        "kube-controller-manager" => format!(
            "{} --use-service-account-credentials=true --service-account-private-key-file={} --root-ca-file={} \
             --cluster-signing-cert-file={} --cluster-signing-key-file={} --leader-elect=false \
             --allocate-node-cidrs=false --flex-volume-plugin-dir={}",
            kubeconfigs(place, name),
            pki("sa.key"),
            pki("ca.crt"),
            pki("ca.crt"),
            pki("ca.key"),
            place.state().join("plugins").display(),
        ),
        _ => format!("{} --leader-elect=false", kubeconfigs(place, name)),
    };
    words.split_whitespace().map(str::to_owned).collect()
}

fn kubeconfigs(place: &Place, role: &str) -> String {
    let file = place.kubeconfig(role);
    let file = file.display();
    format!("--kubeconfig={file} --authentication-kubeconfig={file} --authorization-kubeconfig={file}")
}
