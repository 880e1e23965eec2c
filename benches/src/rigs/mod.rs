//! One file per rig.

mod churn;
mod counters;
mod edits;
mod grpc;
mod h2;
mod http;
mod l4;
mod latency;
mod memory;
mod routes;
mod stage;
mod throughput;
mod tls;

use anyhow::{Result, ensure};

use crate::{
    peers::{ALL, ALL_AND_BARE},
    plan::Plan,
};

/// A rig: its name, what it shows, who can take part, and how it is run.
pub(crate) struct Rig {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The candidates that it knows, in the order of its tables.
    pub(crate) knows: &'static [&'static str],
    pub(crate) run: fn(&Plan) -> Result<()>,
}

/// Of rigs without a peer.
const OURS: [&str; 1] = ["pierhead"];

const RIGS: &[Rig] = &[
    Rig {
        name: "http",
        about: "HTTP/1.1 keep-alive: small and large answers, uploads, streams; clear and TLS 1.3",
        knows: &ALL_AND_BARE,
        run: http::run,
    },
    Rig {
        name: "latency",
        about: "latency of small requests in open loop, at half of what the slower candidates manage",
        knows: &ALL_AND_BARE,
        run: latency::run,
    },
    Rig {
        name: "h2",
        about: "HTTP/2 from clients to HTTP/1.1 at the backend; clear and TLS 1.3",
        knows: &ALL,
        run: h2::run,
    },
    Rig {
        name: "grpc",
        about: "gRPC unary and streaming; clear and TLS 1.3",
        knows: &ALL_AND_BARE,
        run: grpc::run,
    },
    Rig {
        name: "throughput",
        about: "the same small and large answers by wrk and h2load, to hold our client against theirs",
        knows: &ALL,
        run: throughput::run,
    },
    Rig {
        name: "tls",
        about: "TLS 1.3 handshakes, full and resumed",
        knows: &ALL,
        run: tls::run,
    },
    Rig {
        name: "l4",
        about: "TCP connections, bulk and UDP packets in namespaces: full, steer, off, HAProxy, nft",
        knows: &l4::NAMES,
        run: l4::run,
    },
    Rig {
        name: "counters",
        about: "instructions per request by valgrind, held against a committed baseline",
        knows: &counters::KNOWS,
        run: counters::run,
    },
    Rig {
        name: "memory",
        about: "memory when started, with 5,000 routes, and per idle connection of 10,000",
        knows: &ALL,
        run: memory::run,
    },
    Rig {
        name: "routes",
        about: "from a changed file to the first answer that shows it; CPU of one change",
        knows: &OURS,
        run: routes::run,
    },
    Rig {
        name: "churn",
        about: "route changes under load: failed requests, latency with and without",
        knows: &OURS,
        run: churn::run,
    },
];

/// The rig of this name, or all.
pub(crate) fn named(name: &str) -> Result<Vec<&'static Rig>> {
    let found: Vec<_> = RIGS.iter().filter(|rig| name == "all" || rig.name == name).collect();
    let names: Vec<_> = RIGS.iter().map(|rig| rig.name).collect();
    ensure!(
        !found.is_empty(),
        "no rig `{name}`; there are {} and all",
        names.join(" ")
    );
    Ok(found)
}
