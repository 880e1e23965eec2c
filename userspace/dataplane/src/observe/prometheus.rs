//! The Prometheus text exposition format, version 0.0.4.

use std::fmt::Write;

use super::{
    BackendCells, Counter, Histogram, ListenerCells, PerWorker, Reason, Registry, WorkerCells, cells::LATENCY_BOUNDS_US,
};

/// All series of `registry`.
pub(crate) fn text(registry: &Registry, generation: u64) -> String {
    let mut page = Page(String::with_capacity(16 * 1024));
    page.head("pierhead_config_generation", "gauge", "Snapshots applied so far.");
    page.value("pierhead_config_generation", "", "", generation);
    page.workers(&registry.worker());
    let listeners: Vec<_> = registry
        .listeners()
        .into_iter()
        .map(|(id, cells)| (label("listener", &id.to_string()), cells))
        .collect();
    page.listeners(&listeners);
    let backends: Vec<_> = registry
        .backends()
        .into_iter()
        .map(|(id, cells)| (label("backend", id.as_str()), cells))
        .collect();
    page.backends(&backends);
    page.0
}

/// `name="value"`, escaped.
fn label(name: &str, value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{escaped}\"")
}

fn sum<T: Default>(cells: &PerWorker<T>, of: impl Fn(&T) -> &Counter) -> u64 {
    cells.iter().map(|cell| of(cell).value()).fold(0, u64::wrapping_add)
}

type Series<T> = (String, std::sync::Arc<PerWorker<T>>);

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &str, more: &str, value: impl std::fmt::Display) {
        let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
        let _ = if labels.is_empty() && more.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{labels}{comma}{more}}} {value}")
        };
    }

    fn counter<T: Default>(&mut self, name: &str, help: &str, series: &[Series<T>], of: impl Fn(&T) -> &Counter) {
        self.head(name, "counter", help);
        for (labels, cells) in series {
            self.value(name, labels, "", sum(cells, &of));
        }
    }

    /// Opened minus closed. A closing may be read before its opening was: never below zero.
    fn gauge<T: Default>(
        &mut self,
        name: &str,
        help: &str,
        series: &[Series<T>],
        opened: impl Fn(&T) -> &Counter,
        closed: impl Fn(&T) -> &Counter,
    ) {
        self.head(name, "gauge", help);
        for (labels, cells) in series {
            let closed = sum(cells, &closed);
            self.value(name, labels, "", sum(cells, &opened).saturating_sub(closed));
        }
    }

    /// One series per reason that has happened.
    fn by_reason<T: Default>(
        &mut self,
        name: &str,
        help: &str,
        series: &[Series<T>],
        of: impl Fn(&T) -> &[Counter; Reason::COUNT],
    ) {
        self.head(name, "counter", help);
        for (labels, cells) in series {
            for reason in Reason::ALL {
                let count: u64 = cells
                    .iter()
                    .filter_map(|cell| of(cell).get(reason.index()))
                    .map(Counter::value)
                    .sum();
                if count > 0 {
                    self.value(name, labels, &label("reason", reason.as_str()), count);
                }
            }
        }
    }

    fn histogram<T: Default>(&mut self, name: &str, help: &str, series: &[Series<T>], of: impl Fn(&T) -> &Histogram) {
        self.head(name, "histogram", help);
        let (bucket, total, count_name) = (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
        for (labels, cells) in series {
            let mut counts = [0_u64; LATENCY_BOUNDS_US.len() + 1];
            let mut sum_us = 0_u64;
            for cell in cells.iter() {
                sum_us = sum_us.wrapping_add(of(cell).sum_us());
                for (count, more) in counts.iter_mut().zip(of(cell).counts()) {
                    *count += more;
                }
            }
            let mut cumulated = 0;
            let bounds = LATENCY_BOUNDS_US.iter().map(|us| Seconds(*us).to_string());
            for (count, bound) in counts.iter().zip(bounds.chain(["+Inf".to_owned()])) {
                cumulated += count;
                self.value(&bucket, labels, &label("le", &bound), cumulated);
            }
            self.value(&total, labels, "", Seconds(sum_us));
            self.value(&count_name, labels, "", cumulated);
        }
    }

    fn workers(&mut self, cells: &std::sync::Arc<PerWorker<WorkerCells>>) {
        let all = [(String::new(), std::sync::Arc::clone(cells))];
        let all = &all[..];
        self.gauge(
            "pierhead_connections_open",
            "Client connections open now.",
            all,
            |c| &c.opened,
            |c| &c.closed,
        );
        self.counter("pierhead_accept_errors_total", "Accepts that failed.", all, |c| {
            &c.accept_errors
        });
        self.counter(
            "pierhead_strays_total",
            "Connections and datagrams for an address and port nothing is configured for.",
            all,
            |c| &c.strays,
        );
        self.counter(
            "pierhead_tls_unmatched_sni_total",
            "TLS connections whose server name no listener has.",
            all,
            |c| &c.unmatched_sni,
        );
        self.counter(
            "pierhead_access_log_lines_total",
            "Access log lines written.",
            all,
            |c| &c.log_lines,
        );
        self.counter(
            "pierhead_access_log_lines_dropped_total",
            "Access log lines dropped because the target was too slow.",
            all,
            |c| &c.log_lines_dropped,
        );
    }

    fn listeners(&mut self, all: &[Series<ListenerCells>]) {
        self.counter(
            "pierhead_listener_streams_total",
            "Streams (TCP, TLS) and UDP sessions begun.",
            all,
            |c| &c.opened,
        );
        self.gauge(
            "pierhead_listener_streams_open",
            "Streams (TCP, TLS) and UDP sessions open now.",
            all,
            |c| &c.opened,
            |c| &c.closed,
        );
        self.by_reason(
            "pierhead_listener_refused_total",
            "Connections refused before they were served.",
            all,
            |c| &c.refused,
        );
        self.counter(
            "pierhead_tls_handshakes_total",
            "TLS handshakes that succeeded.",
            all,
            |c| &c.handshakes,
        );
        self.counter(
            "pierhead_tls_handshakes_failed_total",
            "TLS handshakes that failed.",
            all,
            |c| &c.handshakes_failed,
        );
        self.head(
            "pierhead_requests_total",
            "counter",
            "HTTP requests answered, by class of status; `0xx`: none was sent.",
        );
        for (labels, cells) in all {
            for class in 0..6 {
                let count: u64 = cells
                    .iter()
                    .filter_map(|c| c.requests.get(class))
                    .map(Counter::value)
                    .sum();
                if count > 0 {
                    self.value(
                        "pierhead_requests_total",
                        labels,
                        &format!("status=\"{class}xx\""),
                        count,
                    );
                }
            }
        }
        self.by_reason(
            "pierhead_ended_total",
            "Requests, streams and sessions by how they ended.",
            all,
            |c| &c.ended,
        );
        self.histogram(
            "pierhead_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            all,
            |c| &c.latency,
        );
        self.counter("pierhead_received_bytes_total", "Bytes from clients.", all, |c| {
            &c.bytes_in
        });
        self.counter("pierhead_sent_bytes_total", "Bytes to clients.", all, |c| &c.bytes_out);
        self.counter(
            "pierhead_datagrams_received_total",
            "Datagrams from clients.",
            all,
            |c| &c.datagrams_in,
        );
        self.counter("pierhead_datagrams_sent_total", "Datagrams to clients.", all, |c| {
            &c.datagrams_out
        });
        self.counter("pierhead_datagrams_dropped_total", "Datagrams dropped.", all, |c| {
            &c.datagrams_dropped
        });
    }

    fn backends(&mut self, all: &[Series<BackendCells>]) {
        self.counter(
            "pierhead_backend_attempts_total",
            "Attempts to use a backend.",
            all,
            |c| &c.attempts,
        );
        self.counter(
            "pierhead_backend_connects_total",
            "Connections opened to a backend.",
            all,
            |c| &c.connects,
        );
        self.by_reason("pierhead_backend_errors_total", "Attempts that failed.", all, |c| {
            &c.errors
        });
        self.histogram(
            "pierhead_backend_duration_seconds",
            "From the choice of an endpoint to the head of its answer (TCP: to the connection).",
            all,
            |c| &c.latency,
        );
    }
}

/// Microseconds, shown as seconds without trailing zeros.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pierhead_model::{BackendId, ListenerId, Origin};

    use super::*;

    #[test]
    fn cells_of_all_workers_are_summed_and_buckets_cumulated() {
        let registry = Registry::new(2);
        let listener = registry.listener(&ListenerId {
            owner: Origin::new("Gateway", "default", "we\"b"),
            name: "http".into(),
        });
        let _backend = registry.backend(&BackendId::new("default/shop:80"));
        for worker in 0..2 {
            let cells = listener.of(worker);
            cells.requests[2].add(3);
            cells.latency.record(Duration::from_micros(700));
            cells.opened.add(2);
            cells.closed.add(1);
        }
        listener.of(1).end(Reason::BackendReset);
        let page = text(&registry, 7);
        for line in [
            "pierhead_config_generation 7",
            "pierhead_requests_total{listener=\"Gateway default/we\\\"b#http\",status=\"2xx\"} 6",
            "pierhead_listener_streams_open{listener=\"Gateway default/we\\\"b#http\"} 2",
            "pierhead_ended_total{listener=\"Gateway default/we\\\"b#http\",reason=\"backend_reset\"} 1",
            "pierhead_request_duration_seconds_bucket{listener=\"Gateway default/we\\\"b#http\",le=\"0.0005\"} 0",
            "pierhead_request_duration_seconds_bucket{listener=\"Gateway default/we\\\"b#http\",le=\"0.001\"} 2",
            "pierhead_request_duration_seconds_bucket{listener=\"Gateway default/we\\\"b#http\",le=\"+Inf\"} 2",
            "pierhead_request_duration_seconds_sum{listener=\"Gateway default/we\\\"b#http\"} 0.0014",
            "pierhead_backend_attempts_total{backend=\"default/shop:80\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is missing in\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
        }
    }
}
