//! Installing, upgrading and removing as users do, and what each manifest looks like to the API server.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pierhead_cluster::helm::{RELEASE, chart, shown};
use pierhead_cluster::lab::{Lab, NAMESPACE, eventually};
use serde_json::Value;

/// Every switch of the chart that makes one more object, or one differently.
const ALL_ON: &[&str] = &[
    "--set",
    "namespace.create=true,ingressClass.default=true,ingress.watchWithoutClass=true",
    "--set",
    "ingress.defaultCertificate=default/certificate,onMiss=pass,log=debug",
    "--set",
    "grafanaDashboard.create=true,networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b",
    "--set",
    "node.ebpf=off,node.workers=2,node.maxFlows=1000000,node.nics={eth0},node.admin.address=$(HOST_IP)",
    "--set",
    "imagePullSecrets[0].name=pull,image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "--set",
    "controller.tolerations[0].operator=Exists,node.tolerations[0].operator=Exists",
];

fn template(lab: &Lab, more: &[&str]) -> Result<String> {
    let chart = shown(&chart())?;
    let mut words = vec![
        "template",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--kube-version",
        "1.37.2",
    ];
    words.extend(more);
    lab.helm(&words)
}

/// Asks the API server whether it would take all of it, unknown fields refused.
fn check(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("pierhead-{}-{name}.yaml", std::process::id()));
    std::fs::write(&file, text)?;
    let said = lab.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &shown(&file)?,
    ]);
    std::fs::remove_file(&file)?;
    said.map(drop).with_context(|| name.to_owned())
}

/// Every object of Pierhead that the API server has, of the kinds that the chart makes.
fn objects(lab: &Lab) -> Result<BTreeSet<String>> {
    let kinds = "clusterrole,clusterrolebinding,gatewayclass,ingressclass";
    let within = "all,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget,gatewayparameters";
    let selector = "app.kubernetes.io/name=pierhead";
    let mut found = BTreeSet::new();
    for words in [
        vec!["get", kinds, "-l", selector, "-o", "name"],
        vec!["get", within, "-n", NAMESPACE, "-l", selector, "-o", "name"],
    ] {
        found.extend(lab.kubectl(&words)?.lines().map(str::to_owned));
    }
    Ok(found)
}

#[test]
fn install_upgrade_and_removal() {
    let lab = Lab::here().unwrap();
    lab.install(&[]).unwrap();
    let installed = objects(&lab).unwrap();
    assert!(
        installed.contains("daemonset.apps/pierhead-node") && installed.contains("deployment.apps/pierhead-controller"),
        "{installed:?}"
    );

    // An upgrade that changes every pod, and is seen through.
    lab.install(&["--set", "log=debug"]).unwrap();
    let history = lab.helm(&["history", RELEASE, "--namespace", NAMESPACE]).unwrap();
    assert!(history.contains("deployed"), "{history}");

    lab.uninstall().unwrap();
    // Pods go after what made them, when they have drained.
    eventually("nothing is left behind", Duration::from_secs(60), || {
        let left = objects(&lab)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .unwrap();
    let kept = lab
        .kubectl(&["get", "crd", "gatewayparameters.pierhead.dev", "-o", "name"])
        .unwrap();
    assert!(
        kept.contains("gatewayparameters"),
        "removing the chart must not delete users' objects"
    );

    // With nothing installed: what another manager applied before would be merged into each.
    let with = |words: &[&str], name: &str| check(&lab, name, &template(&lab, words).unwrap()).unwrap();
    with(&[], "default");
    with(
        &[
            "--set",
            "namespace.create=true,addresses.type=Pool,addresses.pool.cidrs={192.0.2.0/24}",
        ],
        "pool",
    );
    with(
        &[
            "--set",
            "addresses.type=Service,addresses.service.annotations.a=b,addresses.service.loadBalancerClass=x/y",
        ],
        "service",
    );
    with(ALL_ON, "all-on");
    for file in ["pierhead.yaml", "crds.yaml"] {
        let text = std::fs::read_to_string(chart().join("..").join(file)).unwrap();
        check(&lab, file, &text).unwrap();
    }

    lab.install(&[]).unwrap();
}

/// The API server of the tests does not know the kind, so what it must hold is looked at here.
#[test]
fn a_service_monitor_finds_controller_and_nodes() {
    let lab = Lab::here().unwrap();
    let text = template(&lab, &["--set", "serviceMonitor.create=true"]).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let monitor = of("ServiceMonitor").next().unwrap();
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    let port = &monitor["spec"]["endpoints"][0]["port"];
    let scraped: Vec<&str> = of("Service")
        .filter(|service| {
            let labels = &service["metadata"]["labels"];
            let matches = wanted
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, value)| labels[name] == *value);
            let ports = service["spec"]["ports"].as_array().unwrap();
            matches && ports.iter().any(|one| one["name"] == *port)
        })
        .filter_map(|service| service["metadata"]["name"].as_str())
        .collect();
    assert_eq!(scraped, ["pierhead-controller", "pierhead-node"]);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let lab = Lab::here().unwrap();
    let chart = shown(&chart()).unwrap();
    for (words, why) in [
        ("addresses.type=Pool", "cidrs"),
        ("addresses.type=Cloud", "addresses/type"),
        ("node.epbf=off", "epbf"),
        ("ingress.httpPort=0", "httpPort"),
        ("onMiss=maybe", "onMiss"),
    ] {
        let error = lab
            .helm(&["template", RELEASE, &chart, "--kube-version", "1.37.2", "--set", words])
            .map_or_else(|error| format!("{error:#}"), |_| panic!("{words} is taken"));
        assert!(error.contains(why), "{words}: {error}");
    }
}
