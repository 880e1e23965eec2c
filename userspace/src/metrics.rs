//! The control plane's own numbers, beside those of the data plane.

use std::fmt::{Display, Write as _};

use pierhead_controller::files::Published;
use pierhead_model::{Severity, Transport};

use crate::node::Node;
use crate::picture;
use crate::shared::Shared;

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
}
