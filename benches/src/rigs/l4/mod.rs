//! Layer 4: TCP and UDP from a client's namespace over a node to a host, by each way there is.
//!
//! Work of the kernel for a packet is charged to whoever's turn it is, and between namespaces that is mostly the sender. So
//! everything that takes part is counted: client, server, proxy and the kernel's own soft-interrupt threads. A plain route
//! without any balancer is measured the same way; what a candidate takes beyond it is its cost.

mod packets;
mod stream;
mod way;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    cpu,
    plan::Plan,
    report::{Book, Sample, Scenario},
};
use way::{Kind, Way};

/// Ways for TCP. The first is what the others are measured from.
const TCP: [Kind; 6] = [
    Kind::Route,
    Kind::Full,
    Kind::Steer,
    Kind::Off,
    Kind::Haproxy,
    Kind::Nft,
];

/// The names of [`TCP`].
pub(super) const NAMES: [&str; TCP.len()] = {
    let mut names = [""; TCP.len()];
    let mut at = 0;
    while at < TCP.len() {
        names[at] = TCP[at].name();
        at += 1;
    }
    names
};

pub(crate) fn run(plan: &Plan) -> Result<()> {
    cpu::pin(cpu::CLIENT_CORE)?;
    let mut book = Book::new("l4", "Layer 4");
    let kinds = TCP
        .into_iter()
        .filter(|kind| *kind == Kind::Route || plan.candidates.contains(&kind.name()));
    let ways = kinds
        .map(|kind| Way::lay(kind, 1, 1).with_context(|| kind.name()))
        .collect::<Result<Vec<_>>>()?;
    for (title, unit, work) in [
        (
            "TCP connections: connect, 64 B each way, close",
            "connection",
            stream::connections as Work,
        ),
        ("TCP bulk to the server", "GB", stream::upload),
        ("TCP bulk to the client", "GB", stream::download),
    ] {
        if plan.wants(title) {
            book.add(scenario(plan, &ways, title, unit, work)?);
        }
    }
    drop(ways);
    packets::run(plan, &mut book)?;
    book.write(plan)
}

/// Does work over a way for about so long; how many units.
type Work = fn(&Way, Duration) -> Result<f64>;

fn scenario(plan: &Plan, ways: &[Way], title: &str, unit: &'static str, work: Work) -> Result<Scenario> {
    let mut scenario = Scenario::new(title, unit);
    for round in 0..=plan.rounds {
        let mut plain = None;
        for way in ways {
            let cost = Cost::of(way, |way| work(way, plan.time_of(round))).with_context(|| way.kind.name())?;
            let plain = *plain.get_or_insert(cost.all);
            if round > 0 {
                scenario.add(
                    way.kind.name(),
                    Sample(vec![
                        ("CPU-µs beyond a plain route", (cost.all - plain) * 1e6),
                        ("CPU-µs in all", cost.all * 1e6),
                        ("of it the proxy's", cost.proxy * 1e6),
                        ("per s", cost.rate),
                    ]),
                );
            }
        }
    }
    Ok(scenario)
}

/// Seconds per unit.
struct Cost {
    all: f64,
    proxy: f64,
    rate: f64,
}

impl Cost {
    fn of(way: &Way, work: impl FnOnce(&Way) -> Result<f64>) -> Result<Self> {
        let started = std::time::Instant::now();
        let (mine, proxy, kernel) = (cpu::own_time(), way.run_time()?, cpu::soft_interrupts()?);
        let units = work(way)?;
        let proxy = way.run_time()?.saturating_sub(proxy);
        let rest = cpu::own_time().saturating_sub(mine) + cpu::soft_interrupts()?.saturating_sub(kernel);
        Ok(Self {
            all: (rest + proxy).as_secs_f64() / units,
            proxy: proxy.as_secs_f64() / units,
            rate: units / started.elapsed().as_secs_f64(),
        })
    }
}
