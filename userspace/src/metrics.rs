//! The control plane's own numbers, beside those of the data plane.

use std::fmt::Write as _;

use pierhead_model::Severity;

use crate::admin::Shared;

/// Everything, in the Prometheus text format.
pub(crate) fn text(shared: &Shared) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    gauge(
        "pierhead_build_info",
        "Constant 1; the version is a label.",
        &[(version, 1.0)],
    );
    gauge(
        "pierhead_ready",
        "1 while the configuration is in force.",
        &one(f64::from(u8::from(shared.is_ready()))),
    );
    gauge(
        "pierhead_uptime_seconds",
        "Since the process started.",
        &one(shared.started.elapsed().as_secs_f64()),
    );
    let Some(live) = shared.live() else { return text };
    let mode = &live.node.mode;
    let labels = format!(
        "{{asked=\"{}\",chosen=\"{}\"}}",
        mode.asked.as_str(),
        mode.chosen.as_str()
    );
    gauge(
        "pierhead_ebpf_mode",
        "Constant 1; how much the kernel does is a label.",
        &[(labels, 1.0)],
    );
    let paths = live.node.paths();
    let samples: Vec<_> = paths
        .iter()
        .map(|path| {
            (
                format!(
                    "{{bind=\"{}\",path=\"{}\"}}",
                    path.bind,
                    crate::picture::path_name(path.path)
                ),
                1.0,
            )
        })
        .collect();
    gauge(
        "pierhead_bind_path",
        "1 for the data path that carries each bind.",
        &samples,
    );
    let published = live.published.borrow().clone();
    let count = |length: usize| u32::try_from(length).map_or(f64::MAX, f64::from);
    #[allow(
        clippy::cast_precision_loss,
        reason = "a count of configurations stays far below 2^53"
    )]
    gauge(
        "pierhead_config_version",
        "Counts the configurations published.",
        &one(published.version as f64),
    );
    gauge(
        "pierhead_config_objects",
        "Objects in force.",
        &one(count(published.objects)),
    );
    let severe = |severity: Severity| {
        published
            .translation
            .problems
            .iter()
            .filter(|one| one.severity == severity)
            .count()
    };
    let problems = [
        ("{source=\"file\",severity=\"error\"}", published.file_problems.len()),
        ("{source=\"translation\",severity=\"error\"}", severe(Severity::Error)),
        (
            "{source=\"translation\",severity=\"warning\"}",
            severe(Severity::Warning),
        ),
    ];
    let samples: Vec<_> = problems
        .map(|(labels, number)| (labels.to_owned(), count(number)))
        .to_vec();
    gauge(
        "pierhead_config_problems",
        "What is wrong with the configuration now.",
        &samples,
    );
    let took = published.took.as_secs_f64();
    gauge(
        "pierhead_config_translate_seconds",
        "Reading and translating the last change.",
        &one(took),
    );
    let expiry: Vec<_> = published
        .translation
        .snapshot
        .certificates
        .values()
        .map(|one| {
            #[allow(clippy::cast_precision_loss, reason = "seconds since the epoch stay far below 2^53")]
            let seconds = one.not_after as f64;
            (format!("{{certificate=\"{}\"}}", one.id), seconds)
        })
        .collect();
    gauge(
        "pierhead_certificate_not_after_seconds",
        "End of validity, seconds since the Unix epoch.",
        &expiry,
    );
    text.push_str(&live.node.dataplane.metrics());
    text
}
