//! The programs of the cluster and of other tests, built from Go modules whose versions the `go.mod` files below `tests` pin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::place::{Place, source};
use super::tools;
use crate::sh::{self, say};

/// Without these the programs call themselves `v0.0.0-master`, and what checks version skew refuses them.
const LDFLAGS: &str = "-X k8s.io/component-base/version.gitVersion=v1.37.2 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";

/// A program: the module's folder in `tests/cluster`, its name, its package.
type Program = (&'static str, &'static str, &'static str);

const PROGRAMS: &[Program] = &[
    ("kube", "etcd", "go.etcd.io/etcd/server/v3"),
    ("kube", "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube",
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kube", "kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube", "kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube", "kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube", "kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    (
        "node",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    (
        "node",
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    ("node", "ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    (
        "node",
        "bridge",
        "github.com/containernetworking/plugins/plugins/main/bridge",
    ),
    (
        "node",
        "loopback",
        "github.com/containernetworking/plugins/plugins/main/loopback",
    ),
    (
        "node",
        "host-local",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ),
    (
        "node",
        "portmap",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ),
    ("dns", "coredns", "github.com/coredns/coredns"),
    ("echo", "echo-basic", "sigs.k8s.io/gateway-api/conformance/echo-basic"),
];

/// What renders and installs the chart; the cluster itself needs none.
const HELM: Program = ("helm", "helm", "helm.sh/helm/v3/cmd/helm");

/// The conformance tests of HTTP/2, for the tier of the wire.
const H2SPEC: (&str, &str) = ("h2spec", "github.com/summerwind/h2spec/cmd/h2spec");

/// The official suite as a program, which needs no source tree when it runs.
pub(crate) const SUITE: &str = "conformance.test";

/// Builds the programs of the cluster that are missing or out of date.
///
/// # Errors
/// A build fails.
pub(crate) fn build(place: &Place) -> Result<()> {
    fs::create_dir_all(place.bin("")).context("cannot make the folder of the programs")?;
    PROGRAMS.iter().try_for_each(|program| build_one(place, program))
}

/// Builds Helm where it is missing or out of date; where it is.
///
/// # Errors
/// The build fails, or there is no Go.
pub(crate) fn build_helm(place: &Place) -> Result<PathBuf> {
    if !sh::has("go") {
        bail!("helm is built from a Go module: install Go (Debian: golang-go)");
    }
    fs::create_dir_all(place.bin("")).context("cannot make the folder of the programs")?;
    build_one(place, &HELM)?;
    Ok(place.bin(HELM.1))
}

/// Builds the conformance tests of HTTP/2 where they are missing or out of date; where they are.
///
/// # Errors
/// A build fails, or there is no Go.
pub(crate) fn build_h2spec(place: &Place) -> Result<PathBuf> {
    tools::install_go()?;
    fs::create_dir_all(place.bin("")).context("cannot make the folder of the programs")?;
    let (name, package) = H2SPEC;
    build_in(place, &sh::root().join("tests/wire/h2spec"), name, package)?;
    Ok(place.bin(name))
}

fn build_one(place: &Place, &(module, name, package): &Program) -> Result<()> {
    build_in(place, &source(module), name, package)
}

fn build_in(place: &Place, module: &Path, name: &str, package: &str) -> Result<()> {
    let stamp = stamp(module, &[])?;
    if up_to_date(place, name, &stamp) {
        return Ok(());
    }
    let mut go = tools::go(module);
    go.args(["build", "-ldflags", LDFLAGS, "-o"])
        .arg(place.bin(name))
        .arg(package);
    compile(place, name, &mut go, &stamp)
}

/// Builds the conformance suite where it is missing or out of date; where it is.
///
/// # Errors
/// The build fails.
pub(crate) fn build_suite(place: &Place) -> Result<PathBuf> {
    fs::create_dir_all(place.bin("")).context("cannot make the folder of the programs")?;
    let dir = suite_module();
    let mut sources: Vec<PathBuf> = fs::read_dir(&dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "go"))
        .collect();
    sources.sort();
    let stamp = stamp(&dir, &sources)?;
    if !up_to_date(place, SUITE, &stamp) {
        let mut go = tools::go(&dir);
        go.args(["test", "-c", "-ldflags", LDFLAGS, "-o"])
            .arg(place.bin(SUITE))
            .arg(".");
        compile(place, SUITE, &mut go, &stamp)?;
    }
    Ok(place.bin(SUITE))
}

/// The module of the conformance suite.
pub(crate) fn suite_module() -> PathBuf {
    sh::root().join("tests/conformance/suite")
}

fn compile(place: &Place, name: &str, go: &mut Command, stamp: &str) -> Result<()> {
    say(&format!(
        "building {name} (all programs of the cluster: 11 minutes on two cores, once)"
    ));
    let started = Instant::now();
    sh::output(go).with_context(|| format!("{name} does not build"))?;
    fs::create_dir_all(place.bin("stamps")).context("cannot make the folder of the stamps")?;
    fs::write(stamp_file(place, name), stamp).with_context(|| format!("cannot write the stamp of {name}"))?;
    say(&format!("built {name} in {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Everything that decides what a program is, in one text.
fn stamp(module: &Path, sources: &[PathBuf]) -> Result<String> {
    let mut text = format!("{}\n{LDFLAGS}\n", tools::GO_TOOLCHAIN);
    let fixed = [module.join("go.mod"), module.join("go.sum")];
    for file in fixed.iter().chain(sources) {
        text.push_str(&fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?);
    }
    Ok(text)
}

fn up_to_date(place: &Place, name: &str, stamp: &str) -> bool {
    place.bin(name).exists() && fs::read_to_string(stamp_file(place, name)).is_ok_and(|old| old == stamp)
}

fn stamp_file(place: &Place, name: &str) -> PathBuf {
    place.dir().join("bin/stamps").join(name)
}
