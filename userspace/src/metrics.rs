//! The control plane's own numbers, beside those of the data plane.

use std::fmt::{Display, Write as _};

use pierhead_controller::Published;
use pierhead_controller::nodes::NodeState;
use pierhead_model::{Severity, Transport};

use crate::node::Node;
use crate::picture;
use crate::shared::{Cluster, Shared, Source};
use crate::uplink::Link;

/// A page in the Prometheus text format, in the making.
struct Page(String);

impl Page {
    fn family<V: Display>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn gauge<V: Display>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, V)>) {
        self.family("gauge", name, help, samples);
    }

    fn one<V: Display>(&mut self, name: &str, help: &str, value: V) {
        self.gauge(name, help, [(String::new(), value)]);
    }
}

/// Everything.
pub(crate) fn text(shared: &Shared) -> String {
    let mut page = Page(String::new());
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    page.gauge(
        "pierhead_build_info",
        "Constant 1; the version is a label.",
        [(version, 1)],
    );
    page.one(
        "pierhead_ready",
        "1 while the configuration is in force.",
        u8::from(shared.not_ready().is_none()),
    );
    let uptime = shared.started.elapsed().as_secs_f64();
    page.one("pierhead_uptime_seconds", "Since the process started.", uptime);
    if let Some(deaths) = shared.deaths.get() {
        let help = "How often the process that served here died and was started again (--supervise).";
        page.family("counter", "pierhead_deaths_total", help, [(String::new(), deaths)]);
    }
    if let Some(Source::Controller(link)) = shared.source() {
        uplink(&mut page, &link.borrow());
    }
    if let Some(Source::Cluster(cluster)) = shared.source() {
        control_plane(&mut page, cluster);
    }
    if let Some(published) = shared.published() {
        configuration(&mut page, &published);
    }
    if let Some(snapshot) = shared.snapshot() {
        let certificates = snapshot.certificates.values();
        let expiry = certificates.map(|one| (format!("{{certificate=\"{}\"}}", one.id), one.not_after));
        let help = "End of validity, seconds since the Unix epoch.";
        page.gauge("pierhead_certificate_not_after_seconds", help, expiry);
    }
    if let Some(node) = shared.node() {
        carried(&mut page, node);
    }
    page.0
}

/// What the control plane did.
fn control_plane(page: &mut Page, cluster: &Cluster) {
    let values = cluster.counters.values();
    page.one(
        "pierhead_leader",
        "1 while this one writes statuses.",
        u8::from(values.leader),
    );
    page.one(
        "pierhead_status_pending",
        "Objects whose status is known to be out of date.",
        values.status_pending,
    );
    page.one(
        "pierhead_watches_failing",
        "Kinds whose watch fails at present.",
        values.failing.len(),
    );
    for (name, help, value) in [
        (
            "pierhead_watch_events_total",
            "Objects and deletions received.",
            values.watch_events,
        ),
        (
            "pierhead_watch_errors_total",
            "Watches that broke.",
            values.watch_errors,
        ),
        ("pierhead_translations_total", "Translations made.", values.translations),
        (
            "pierhead_published_total",
            "Configurations that differed from the one before.",
            values.published,
        ),
        (
            "pierhead_status_writes_total",
            "Statuses written.",
            values.status_writes,
        ),
        (
            "pierhead_status_conflicts_total",
            "Statuses written again over a newer object.",
            values.status_conflicts,
        ),
        (
            "pierhead_status_errors_total",
            "Statuses that could not be written at once.",
            values.status_errors,
        ),
        (
            "pierhead_service_writes_total",
            "Services applied.",
            values.service_writes,
        ),
        (
            "pierhead_service_errors_total",
            "Services that could not be applied at once.",
            values.service_errors,
        ),
        ("pierhead_events_total", "Events sent.", values.events_sent),
        (
            "pierhead_events_dropped_total",
            "Events not sent because there were too many.",
            values.events_dropped,
        ),
        (
            "pierhead_lease_renewals_total",
            "Renewals of the lease.",
            values.lease_renewals,
        ),
        (
            "pierhead_lease_errors_total",
            "Renewals of the lease that failed.",
            values.lease_errors,
        ),
    ] {
        page.family("counter", name, help, [(String::new(), value)]);
    }
    let Some(nodes) = cluster.nodes() else { return };
    let labelled = |value: &dyn Fn(&NodeState) -> u64| -> Vec<(String, u64)> {
        let all = nodes.by_name.iter();
        all.map(|(name, node)| (format!("{{node=\"{name}\"}}"), value(node)))
            .collect()
    };
    page.gauge(
        "pierhead_node_connected",
        "1 while the node is connected.",
        labelled(&|node| u64::from(node.connected)),
    );
    page.gauge(
        "pierhead_node_version",
        "The newest version the node answered.",
        labelled(&|node| node.acked),
    );
    page.gauge(
        "pierhead_node_nacked_resources",
        "Resources the node could not apply.",
        labelled(&|node| node.nacks.len() as u64),
    );
}

/// What carries traffic, and what was carried.
fn carried(page: &mut Page, node: &Node) {
    let mode = &node.mode;
    let labels = format!(
        "{{asked=\"{}\",chosen=\"{}\"}}",
        mode.asked.as_str(),
        mode.chosen.as_str()
    );
    page.gauge(
        "pierhead_ebpf_mode",
        "Constant 1; how much the kernel does is a label.",
        [(labels, 1)],
    );
    let paths = node.paths().into_iter();
    let labels = paths.map(|path| format!("{{bind=\"{}\",path=\"{}\"}}", path.bind, picture::path_name(path.path)));
    page.gauge(
        "pierhead_bind_path",
        "1 for the data path that carries each bind.",
        labels.map(|labels| (labels, 1)),
    );
    let applied = node.applied();
    page.family(
        "counter",
        "pierhead_snapshots_applied_total",
        "Snapshots put in force.",
        [(String::new(), applied.count)],
    );
    page.family(
        "counter",
        "pierhead_snapshots_refused_total",
        "Snapshots of which the kernel refused something.",
        [(String::new(), applied.refused)],
    );
    if let Some((when, took)) = applied.last {
        page.one(
            "pierhead_snapshot_age_seconds",
            "Since a snapshot was put in force last.",
            when.elapsed().as_secs_f64(),
        );
        page.one(
            "pierhead_snapshot_apply_seconds",
            "What putting the last snapshot in force took.",
            took.as_secs_f64(),
        );
    }
    page.0.push_str(&node.dataplane.metrics());
    if let Some(steering) = &node.steering {
        match steering.counters() {
            Ok(counters) => kernel(page, &counters),
            // The other numbers are still worth having.
            Err(error) => tracing::warn!("the kernel's counters cannot be read: {error}"),
        }
    }
}

/// How a node stands with its controller.
fn uplink(page: &mut Page, link: &Link) {
    page.one(
        "pierhead_controller_connected",
        "1 while the controller is connected.",
        u8::from(link.is_connected()),
    );
    page.one(
        "pierhead_snapshot_version",
        "Of the snapshot in force, as the controller numbers them; 0: none of its yet.",
        link.version,
    );
    page.one(
        "pierhead_nacked_resources",
        "Resources of the snapshot that could not be applied, and were refused.",
        link.nacks.len(),
    );
    for (name, help, value) in [
        (
            "pierhead_controller_connections_total",
            "Connections made to the controller.",
            link.connections,
        ),
        (
            "pierhead_snapshot_responses_total",
            "Changes received from the controller.",
            link.responses,
        ),
        (
            "pierhead_snapshot_nacks_total",
            "Changes answered with a refusal of something.",
            link.refusals,
        ),
    ] {
        page.family("counter", name, help, [(String::new(), value)]);
    }
    if let Some(until) = link.certificate_until {
        page.one(
            "pierhead_node_certificate_not_after_seconds",
            "End of validity of the node's own certificate, seconds since the Unix epoch.",
            until,
        );
    }
}

fn configuration(page: &mut Page, published: &Published) {
    page.one(
        "pierhead_config_version",
        "Counts the configurations published.",
        published.version,
    );
    page.one("pierhead_config_objects", "Objects in force.", published.objects);
    let all = &published.translation.problems;
    let severe = |severity: Severity| all.iter().filter(|one| one.severity == severity).count();
    let problems = [
        ("file", "error", published.file_problems.len()),
        ("translation", "error", severe(Severity::Error)),
        ("translation", "warning", severe(Severity::Warning)),
    ];
    let samples =
        problems.map(|(source, severity, number)| (format!("{{source=\"{source}\",severity=\"{severity}\"}}"), number));
    page.gauge(
        "pierhead_config_problems",
        "What is wrong with the configuration now.",
        samples,
    );
    let took = published.took.as_secs_f64();
    page.one(
        "pierhead_config_translate_seconds",
        "Reading and translating the last change.",
        took,
    );
}

/// What the kernel programs counted.
fn kernel(page: &mut Page, counters: &pierhead_kernel::Counters) {
    let outcomes = |all: &[(&str, u64)]| -> Vec<(String, u64)> {
        all.iter()
            .map(|(outcome, number)| (format!("{{outcome=\"{outcome}\"}}"), *number))
            .collect()
    };
    let mut counter = |name: &str, help: &str, samples: Vec<(String, u64)>| page.family("counter", name, help, samples);
    let name = "pierhead_kernel_lookups_total";
    counter(
        name,
        "Socket lookups by the steering program.",
        outcomes(&counters.steered),
    );
    let name = "pierhead_kernel_outcomes_total";
    counter(
        name,
        "Packets on external interfaces by what became of them.",
        outcomes(&counters.outcomes),
    );
    let (mut packets, mut bytes, mut flows, mut up) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (bind, traffic) in &counters.binds {
        let protocol = match bind.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let labels = |direction: &str| format!("{{bind=\"{bind}\",protocol=\"{protocol}\"{direction}}}");
        for (direction, packet, byte) in [
            (",direction=\"in\"", traffic.packets_in, traffic.bytes_in),
            (",direction=\"out\"", traffic.packets_out, traffic.bytes_out),
        ] {
            packets.push((labels(direction), packet));
            bytes.push((labels(direction), byte));
        }
        flows.push((labels(""), traffic.flows));
        up.push((labels(""), traffic.to_stack));
    }
    counter(
        "pierhead_kernel_packets_total",
        "Packets balanced in the kernel.",
        packets,
    );
    counter("pierhead_kernel_bytes_total", "Bytes balanced in the kernel.", bytes);
    counter("pierhead_kernel_flows_total", "Flows opened in the kernel.", flows);
    counter(
        "pierhead_kernel_to_stack_total",
        "Packets of a kernel bind left to userspace.",
        up,
    );
    page.one("pierhead_kernel_flows", "Entries of the flow table.", counters.flows);
    page.one(
        "pierhead_kernel_max_flows",
        "Room in the flow table.",
        counters.max_flows,
    );
}
