//! The routes that stand there while something is measured: two rules each, to two backends, behind one Gateway.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::cold;
use crate::api::Id;
use crate::front::{self, GATEWAY};
use crate::ingress::backends;
use crate::lab::{Lab, eventually};

pub(super) const NAMESPACE: &str = "figures";

/// The paths of the two rules, and the backends behind them.
const RULES: [(&str, &str); 2] = [("/one", "one"), ("/two", "two")];

/// The header by which an edit is seen.
pub(super) const MARK: &str = "x-edit";

/// Requests to the API server under way at a time, where nobody measures them.
const WIDTH: usize = 8;

/// How long the API server and Pierhead may take for all routes.
const PATIENCE: Duration = Duration::from_secs(300);

/// After many changes: nodes write what they have to their disks, statuses are written.
const REST: Duration = Duration::from_secs(5);

pub(super) struct Crowd<'a> {
    pub(super) lab: &'a Lab,
    pub(super) front: SocketAddr,
    /// How many stand there.
    pub(super) size: usize,
}

impl<'a> Crowd<'a> {
    /// An empty one, with backends that run.
    pub(super) fn gather(lab: &'a Lab) -> Result<Self> {
        // What a run that was broken off left.
        scatter(lab)?;
        lab.api.apply(&front::namespace(NAMESPACE))?;
        for (_, backend) in RULES {
            lab.api.apply(&backends::deployment(NAMESPACE, backend, 1))?;
            lab.api.apply(&front::service(NAMESPACE, backend))?;
        }
        lab.api.apply(&front::gateway(NAMESPACE))?;
        for (_, backend) in RULES {
            lab.rolled_out("Deployment", NAMESPACE, backend, Duration::from_secs(60))?;
        }
        let address = front::address(lab, NAMESPACE)?;
        Ok(Self {
            lab,
            front: SocketAddr::new(address, 80),
            size: 0,
        })
    }

    /// Adds routes until there are so many, and waits until each has its status and both its rules answer.
    pub(super) fn grow(&mut self, size: usize) -> Result<()> {
        ensure!(size > self.size, "sizes must grow: {size} after {}", self.size);
        each(self.size..size, WIDTH, |number| {
            self.lab
                .api
                .create(&route(&name(number), &host(number), None))
                .map(drop)
        })?;
        self.size = size;
        cold::await_statuses(self, PATIENCE, || ())?;
        let mut connection = self.lab.client.h1(self.front)?;
        for number in 0..size {
            for (path, backend) in RULES {
                eventually("the route answers", PATIENCE, || {
                    let response = connection.get(&host(number), path)?;
                    is_from(&response.body, backend, response.status)
                })
                .with_context(|| format!("{}{path}", host(number)))?;
            }
        }
        thread::sleep(REST);
        Ok(())
    }

    /// Removes everything.
    pub(super) fn disperse(self) -> Result<()> {
        scatter(self.lab)
    }

    /// The hosts of all that stand there.
    pub(super) fn hosts(&self) -> Vec<String> {
        (0..self.size).map(host).collect()
    }
}

/// The path of the first rule.
pub(super) const PATH: &str = RULES[0].0;

/// Of a route that stands there.
pub(super) fn name(number: usize) -> String {
    format!("crowd-{number}")
}

pub(super) fn host(number: usize) -> String {
    format!("{}.example.com", name(number))
}

pub(super) fn id(name: &str) -> Id {
    Id::new("gateway.networking.k8s.io/v1", "HTTPRoute", NAMESPACE, name)
}

/// A route; with a mark, that stands in its answers.
pub(super) fn route(name: &str, host: &str, mark: Option<&str>) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"parentRefs": [{"name": GATEWAY}], "hostnames": [host], "rules": rules(mark)},
    })
}

pub(super) fn rules(mark: Option<&str>) -> Value {
    let rules = RULES.map(|(path, backend)| {
        let mut rule = json!({
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": backend, "port": 80}],
        });
        if let Some(mark) = mark {
            rule["filters"] = json!([{
                "type": "ResponseHeaderModifier",
                "responseHeaderModifier": {"set": [{"name": MARK, "value": mark}]},
            }]);
        }
        rule
    });
    json!(rules)
}

/// Whether this is the first backend's own answer.
pub(super) fn is_from_first(body: &[u8], status: u16) -> Result<()> {
    is_from(body, RULES[0].1, status)
}

fn is_from(body: &[u8], backend: &str, status: u16) -> Result<()> {
    ensure!(status == 200, "status {status}");
    let echo: Value = serde_json::from_slice(body).context("not from the backend")?;
    let pod = echo["pod"].as_str().unwrap_or_default();
    ensure!(pod.starts_with(backend), "{pod} answered instead of {backend}");
    Ok(())
}

fn scatter(lab: &Lab) -> Result<()> {
    let namespace = Id::of(&front::namespace(NAMESPACE))?;
    lab.api.delete(&namespace)?;
    eventually("the namespace is gone", PATIENCE, || match lab.api.get(&namespace)? {
        None => Ok(()),
        Some(_) => bail!("it is still there"),
    })
}

/// Does the work for each number, so many at a time.
pub(super) fn each(numbers: Range<usize>, width: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(numbers.start);
    thread::scope(|scope| {
        let worker = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end {
                    return Ok(());
                }
                work(number)?;
            }
        };
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_panic| anyhow!("a thread panicked"))?)
    })
}
