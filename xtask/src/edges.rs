//! Who may know whom, checked on the resolved graph of `cargo metadata`: normal and build dependencies, not those of
//! tests. Each rule has a test that breaks it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, NodeDep, Package, PackageId};

use crate::sh;

/// Which of our crates each of our crates may name. A crate that is not here is told.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("pierhead-abi", &[]),
    ("pierhead-http1", &[]),
    ("pierhead-http2", &[]),
    ("pierhead-model", &[]),
    ("pierhead-route", &["pierhead-model"]),
    ("pierhead-api", &[]),
    ("pierhead-gateway-api", &[]),
    ("pierhead-protocol", &["pierhead-model"]),
    (
        "pierhead-translate",
        &["pierhead-api", "pierhead-gateway-api", "pierhead-model"],
    ),
    ("pierhead-kernel", &["pierhead-abi", "pierhead-model"]),
    (
        "pierhead-dataplane",
        &["pierhead-http1", "pierhead-http2", "pierhead-model", "pierhead-route"],
    ),
    (
        "pierhead-controller",
        &[
            "pierhead-api",
            "pierhead-gateway-api",
            "pierhead-model",
            "pierhead-protocol",
            "pierhead-translate",
        ],
    ),
    (
        "pierhead",
        &[
            "pierhead-controller",
            "pierhead-dataplane",
            "pierhead-kernel",
            "pierhead-model",
            "pierhead-protocol",
        ],
    ),
    ("pierhead-wire", &[]),
    ("pierhead-cluster", &["pierhead-wire"]),
    ("pierhead-guest", &[]),
    (
        "pierhead-benches",
        &[
            "pierhead-http1",
            "pierhead-model",
            "pierhead-route",
            "pierhead-translate",
            "pierhead-wire",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that do no I/O: time, randomness and the outside world are arguments.
const PURE: &[&str] = &[
    "pierhead-abi",
    "pierhead-http1",
    "pierhead-http2",
    "pierhead-model",
    "pierhead-route",
    "pierhead-api",
    "pierhead-gateway-api",
    "pierhead-translate",
];

/// What does I/O: a pure crate reaches none of these, however far.
const IO: &[&str] = &[
    "async-io",
    "aya",
    "h2",
    "hickory-resolver",
    "hyper",
    "hyper-util",
    "kube",
    "kube-client",
    "mio",
    "notify",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tungstenite",
];

/// System calls: a pure crate does not name these. Some of its dependencies may.
const SYSTEM: &[&str] = &["libc", "nix", "getrandom", "rand"];

/// Kubernetes types end at `translate`: the data plane never reaches them, and the binary does not name them.
const KUBERNETES: &[&str] = &[
    "k8s-openapi",
    "kube",
    "kube-core",
    "pierhead-api",
    "pierhead-gateway-api",
];
const DATA_PLANE: &[&str] = &[
    "pierhead-abi",
    "pierhead-http1",
    "pierhead-http2",
    "pierhead-model",
    "pierhead-protocol",
    "pierhead-route",
    "pierhead-dataplane",
    "pierhead-kernel",
];

/// One TLS stack with one provider of cryptography.
const SECOND_TLS: &[&str] = &["native-tls", "openssl", "openssl-sys", "ring"];

/// The one crate that meets both sides of each wall.
const BINARY: &str = "pierhead";
const KERNEL: &str = "pierhead-kernel";

/// Which package names which, by name.
#[derive(Clone, Default)]
struct Graph {
    ours: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

pub(crate) fn check() -> Result<()> {
    let wrong = violations(&resolved()?);
    if wrong.is_empty() {
        sh::say("who may know whom: holds");
        return Ok(());
    }
    bail!("who may know whom is broken:\n  {}", wrong.join("\n  "))
}

fn resolved() -> Result<Graph> {
    let metadata = MetadataCommand::new()
        .manifest_path(sh::root().join("Cargo.toml"))
        .other_options([
            "--filter-platform".to_owned(),
            format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .context("cargo metadata")?;
    let packages: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let name = |id: &PackageId| {
        packages
            .get(id)
            .map(|package| package.name.to_string())
            .unwrap_or_default()
    };
    let mut graph = Graph {
        ours: metadata.workspace_members.iter().map(&name).collect(),
        edges: BTreeMap::new(),
    };
    for node in metadata
        .resolve
        .context("cargo metadata without a resolved graph")?
        .nodes
    {
        let package = packages.get(&node.id).context("a node without its package")?;
        let active: BTreeSet<&str> = node.features.iter().map(|feature| feature.as_str()).collect();
        let ships = |dep: &&NodeDep| {
            dep.dep_kinds
                .iter()
                .any(|kind| matches!(kind.kind, DependencyKind::Normal | DependencyKind::Build))
                && is_switched_on(package, &active, &name(&dep.pkg))
        };
        let deps = node.deps.iter().filter(ships).map(|dep| name(&dep.pkg));
        graph.edges.entry(name(&node.id)).or_default().extend(deps);
    }
    Ok(graph)
}

/// The resolved graph also lists optional dependencies that only a weak feature (`ring?/std`) mentions: those are not
/// built. A dependency counts when it is not optional, or when an active feature asks for it.
fn is_switched_on(package: &Package, active: &BTreeSet<&str>, whom: &str) -> bool {
    let mut declared = package.dependencies.iter().filter(|dep| dep.name == whom);
    declared.any(|dep| {
        let key = dep.rename.as_deref().unwrap_or(&dep.name);
        !dep.optional || asks_for(&package.features, active, key)
    })
}

/// Whether an active feature asks for the optional dependency of this key: `key`, `dep:key` or `key/feature`.
fn asks_for(features: &BTreeMap<String, Vec<String>>, active: &BTreeSet<&str>, key: &str) -> bool {
    let asked = |line: &String| {
        let line = line.strip_prefix("dep:").unwrap_or(line);
        line == key || line.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'))
    };
    active.contains(key)
        || active
            .iter()
            .filter_map(|name| features.get(*name))
            .flatten()
            .any(asked)
}

/// Every broken rule, a line each.
fn violations(graph: &Graph) -> Vec<String> {
    [
        names_only_whom_it_may,
        abi_has_no_dependency,
        pure_does_no_io,
        controller_and_dataplane_meet_only_in_the_binary,
        only_the_kernel_crate_knows_model_and_abi,
        kubernetes_stops_at_translate,
        ebpf_is_loaded_by_the_kernel_crate,
        one_tls_stack,
    ]
    .iter()
    .flat_map(|rule| rule(graph))
    .collect()
}

fn names_only_whom_it_may(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for who in &graph.ours {
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| name == who) else {
            wrong.push(format!("{who} is new: say in xtask/src/edges.rs whom it may know"));
            continue;
        };
        for whom in graph.named_by(who).filter(|whom| graph.ours.contains(*whom)) {
            if !allowed.contains(&whom) {
                wrong.push(format!("{who} must not know {whom}"));
            }
        }
    }
    wrong
}

fn abi_has_no_dependency(graph: &Graph) -> Vec<String> {
    graph
        .named_by("pierhead-abi")
        .map(|whom| format!("pierhead-abi has no dependencies, but names {whom}"))
        .collect()
}

fn pure_does_no_io(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for who in PURE {
        for whom in graph.reached_from(who) {
            if IO.contains(&whom) {
                wrong.push(format!(
                    "{who} does no I/O, but reaches {whom} through {}",
                    graph.path(who, whom)
                ));
            }
        }
        for whom in graph.named_by(who).filter(|whom| SYSTEM.contains(whom)) {
            wrong.push(format!("{who} does no I/O, but names {whom}"));
        }
    }
    wrong
}

fn controller_and_dataplane_meet_only_in_the_binary(graph: &Graph) -> Vec<String> {
    meets(graph, &["pierhead-controller", "pierhead-dataplane"], BINARY, |who| {
        graph.reached_from(who)
    })
}

fn only_the_kernel_crate_knows_model_and_abi(graph: &Graph) -> Vec<String> {
    meets(graph, &["pierhead-model", "pierhead-abi"], KERNEL, |who| {
        graph.named_by(who).collect()
    })
}

/// Who knows both, other than the one that may.
fn meets<'a>(
    graph: &'a Graph,
    both: &[&str],
    allowed: &str,
    known_by: impl Fn(&'a str) -> BTreeSet<&'a str>,
) -> Vec<String> {
    graph
        .ours
        .iter()
        .filter(|who| who.as_str() != allowed)
        .filter(|who| {
            let known = known_by(who);
            both.iter().all(|whom| known.contains(whom))
        })
        .map(|who| format!("only {allowed} may know both {}, but {who} does", both.join(" and ")))
        .collect()
}

fn kubernetes_stops_at_translate(graph: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for who in DATA_PLANE {
        for whom in graph
            .reached_from(who)
            .into_iter()
            .filter(|whom| KUBERNETES.contains(whom))
        {
            wrong.push(format!(
                "Kubernetes stops at translate, but {who} reaches {whom} through {}",
                graph.path(who, whom)
            ));
        }
    }
    for whom in graph.named_by(BINARY).filter(|whom| KUBERNETES.contains(whom)) {
        wrong.push(format!("Kubernetes stops at translate, but {BINARY} names {whom}"));
    }
    wrong
}

/// In what is shipped: the rigs make frames with a program of their own.
fn ebpf_is_loaded_by_the_kernel_crate(graph: &Graph) -> Vec<String> {
    let may = [KERNEL, "pierhead-benches"];
    graph
        .ours
        .iter()
        .filter(|who| !may.contains(&who.as_str()) && graph.named_by(who).any(|whom| whom == "aya"))
        .map(|who| format!("only {KERNEL} loads eBPF, but {who} names aya"))
        .collect()
}

fn one_tls_stack(graph: &Graph) -> Vec<String> {
    graph
        .ours
        .iter()
        .flat_map(|who| {
            let second = graph
                .reached_from(who)
                .into_iter()
                .filter(|whom| SECOND_TLS.contains(whom));
            second.map(move |whom| {
                format!(
                    "one TLS stack, but {who} reaches {whom} through {}",
                    graph.path(who, whom)
                )
            })
        })
        .collect()
}

impl Graph {
    fn named_by(&self, who: &str) -> impl Iterator<Item = &str> {
        self.edges.get(who).into_iter().flatten().map(String::as_str)
    }

    fn reached_from(&self, who: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = self.named_by(who).collect();
        while let Some(name) = next.pop() {
            if reached.insert(name) {
                next.extend(self.named_by(name));
            }
        }
        reached
    }

    /// A shortest way from one to the other, for the message.
    fn path(&self, from: &str, to: &str) -> String {
        let mut ways = vec![vec![from]];
        let mut seen = BTreeSet::new();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let Some(&last) = way.last() else { continue };
                if last == to {
                    return way.join(" > ");
                }
                for name in self.named_by(last).filter(|name| seen.insert((*name).to_owned())) {
                    longer.push(way.iter().copied().chain([name]).collect());
                }
            }
            ways = longer;
        }
        format!("{from} > … > {to}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small house in which every rule holds.
    fn sound() -> Graph {
        let mut graph = Graph::default();
        for (who, whom) in MAY_NAME {
            graph.ours.insert((*who).to_owned());
            for whom in *whom {
                graph.add(who, whom);
            }
        }
        graph.add("pierhead-translate", "k8s-openapi");
        graph.add("pierhead-translate", "rustls");
        graph.add("rustls", "aws-lc-rs");
        graph.add("aws-lc-rs", "libc");
        graph.add("pierhead-dataplane", "tokio");
        graph.add("tokio", "libc");
        graph.add("pierhead-kernel", "aya");
        graph
    }

    impl Graph {
        fn add(&mut self, who: &str, whom: &str) {
            self.edges.entry(who.to_owned()).or_default().insert(whom.to_owned());
        }
    }

    /// Adds one edge to the sound house; the lines it breaks.
    fn broken_by(who: &str, whom: &str) -> String {
        let mut graph = sound();
        graph.add(who, whom);
        violations(&graph).join("\n")
    }

    #[track_caller]
    fn assert_told(told: &str, expected: &str) {
        assert!(told.contains(expected), "expected `{expected}` in:\n{told}");
    }

    #[test]
    fn the_sound_house_breaks_nothing() {
        assert_eq!(violations(&sound()), Vec::<String>::new());
    }

    #[test]
    fn an_optional_dependency_counts_when_a_feature_asks_for_it() {
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let features = BTreeMap::from([
            ("weak".to_owned(), lines(&["ring?/std"])),
            ("strong".to_owned(), lines(&["ring/std"])),
            ("named".to_owned(), lines(&["dep:ring"])),
            ("other".to_owned(), lines(&["dep:ring-compat"])),
        ]);
        let asks = |active: &[&str]| asks_for(&features, &active.iter().copied().collect(), "ring");
        assert!(!asks(&["weak"]) && !asks(&["other"]) && !asks(&[]));
        assert!(asks(&["strong"]) && asks(&["weak", "named"]) && asks(&["ring"]));
    }

    #[test]
    fn the_real_graph_is_read_whole() {
        let graph = resolved().unwrap();
        assert!(graph.ours.len() >= MAY_NAME.len(), "{:?}", graph.ours);
        assert!(
            graph.reached_from("pierhead-dataplane").contains("mio"),
            "what is far away is seen"
        );
        assert!(
            !graph.reached_from("pierhead-route").contains("proptest"),
            "what only tests need is not"
        );
    }

    #[test]
    fn an_edge_between_ours_that_is_not_in_the_table() {
        assert_told(
            &broken_by("pierhead-http1", "pierhead-model"),
            "pierhead-http1 must not know pierhead-model",
        );
        assert_told(
            &broken_by("pierhead-route", "pierhead-http1"),
            "pierhead-route must not know pierhead-http1",
        );
        assert_told(
            &broken_by("pierhead-wire", "pierhead-model"),
            "pierhead-wire must not know pierhead-model",
        );
    }

    #[test]
    fn a_crate_that_is_not_in_the_table() {
        let mut graph = sound();
        graph.ours.insert("pierhead-new".to_owned());
        assert_told(&violations(&graph).join("\n"), "pierhead-new is new");
    }

    #[test]
    fn a_dependency_of_abi() {
        assert_told(
            &broken_by("pierhead-abi", "bytes"),
            "pierhead-abi has no dependencies, but names bytes",
        );
    }

    #[test]
    fn io_in_every_pure_crate_directly_and_far_away() {
        for pure in PURE {
            for io in IO {
                assert_told(&broken_by(pure, io), &format!("{pure} does no I/O, but reaches {io}"));
            }
            assert_told(&broken_by(pure, "libc"), &format!("{pure} does no I/O, but names libc"));
        }
        let far = broken_by("rustls", "tokio");
        assert_told(
            &far,
            "pierhead-translate does no I/O, but reaches tokio through pierhead-translate > rustls > tokio",
        );
    }

    #[test]
    fn controller_and_dataplane_meeting_outside_the_binary() {
        let rule = "only pierhead may know both pierhead-controller and pierhead-dataplane";
        assert_told(
            &broken_by("pierhead-controller", "pierhead-dataplane"),
            "pierhead-controller must not know",
        );
        let mut graph = sound();
        graph.add("pierhead-benches", "pierhead-controller");
        graph.add("pierhead-benches", "pierhead-dataplane");
        assert_told(
            &violations(&graph).join("\n"),
            &format!("{rule}, but pierhead-benches does"),
        );
    }

    #[test]
    fn model_and_abi_meeting_outside_the_kernel_crate() {
        let rule = "only pierhead-kernel may know both pierhead-model and pierhead-abi";
        assert_told(
            &broken_by("pierhead-dataplane", "pierhead-abi"),
            &format!("{rule}, but pierhead-dataplane does"),
        );
        assert_told(
            &broken_by("pierhead", "pierhead-abi"),
            &format!("{rule}, but pierhead does"),
        );
    }

    #[test]
    fn kubernetes_beyond_translate() {
        for who in DATA_PLANE {
            assert_told(
                &broken_by(who, "k8s-openapi"),
                &format!("Kubernetes stops at translate, but {who} reaches"),
            );
        }
        assert_told(
            &broken_by("pierhead", "pierhead-gateway-api"),
            "but pierhead names pierhead-gateway-api",
        );
    }

    #[test]
    fn ebpf_loaded_elsewhere() {
        assert_told(
            &broken_by("pierhead-dataplane", "aya"),
            "only pierhead-kernel loads eBPF, but pierhead-dataplane",
        );
    }

    #[test]
    fn a_second_tls_stack() {
        for second in SECOND_TLS {
            assert_told(
                &broken_by("tokio", second),
                &format!("one TLS stack, but pierhead-dataplane reaches {second}"),
            );
        }
    }
}
