//! Where something was measured.

use std::fs;

use serde_json::{Value, json};

/// Kernel, processor, and how busy the machine was.
pub fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1.to_owned()));
    // Of the machine: whoever measures may be pinned to one of them.
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model,
        "cores": cores,
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        "load_at_end": load.split_whitespace().next(),
    })
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::*;

    #[test]
    fn cores_are_those_of_the_machine_also_for_who_is_pinned_to_one() {
        let before = describe()["cores"].clone();
        assert!(before.as_u64().is_some_and(|cores| cores > 0), "{before}");
        let mut one = CpuSet::new();
        one.set(0);
        sched_setaffinity(None, &one).unwrap();
        assert_eq!(describe()["cores"], before);
    }
}
