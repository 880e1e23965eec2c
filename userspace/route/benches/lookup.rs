//! Lookup cost at 1 host × 10,000 paths, up to 40,000 hosts × 1 path and 100 × 100, against 1 × 1: it must be flat.
//!
//! Prints nanoseconds per lookup, the ratio to 1 × 1, compile time, compile time after one changed route, and by how much the
//! resident memory grows for each path of a table (not of the routes that it is made of; nor into what was free before).
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and stops when it cannot go on"
)]

use std::{borrow::Cow, hint::black_box, sync::Arc, time::Instant};

use pierhead_model::{
    Age, Attachment, HeaderName, HostPattern, HostSelection, HttpMatch, HttpRoute, HttpRule, ListenerId, Origin,
    PathMatch, RouteFlavor, RouteId, Timeouts, WildcardDepth,
};
use pierhead_route::{Request, RouteTable, Routes};

struct Asked {
    host: String,
    path: String,
}

impl Request for Asked {
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        None
    }
    fn method(&self) -> &'static str {
        "GET"
    }
    fn header(&self, _: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }
}

fn listener() -> ListenerId {
    ListenerId {
        owner: Origin::new("Gateway", "default", "gw"),
        name: "http".into(),
    }
}

fn route(host: usize, paths: usize) -> Arc<HttpRoute> {
    let name = format!("r{host}");
    let rules = (0..paths)
        .map(|path| HttpRule {
            name: None,
            hosts: None,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix(format!("/api/v1/p{path}").into()),
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
            }],
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            fallback: false,
        })
        .collect();
    let host = HostPattern::parse(&format!("host{host}.example.com"), WildcardDepth::Many).unwrap();
    Arc::new(HttpRoute {
        id: RouteId(Origin::new("HTTPRoute", "default", &name)),
        flavor: RouteFlavor::Http,
        age: Age {
            created: 0,
            namespace: "default".into(),
            name: name.into(),
        },
        attachments: vec![Attachment {
            listener: listener(),
            hosts: vec![host],
        }],
        rules,
    })
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn main() {
    const LOOKUPS: usize = 2_000_000;
    let mut base = None;
    println!(
        "{:>14} {:>12} {:>8} {:>14} {:>18} {:>10}",
        "hosts × paths", "ns/lookup", "÷ 1×1", "compile ms", "one change ms", "B/path"
    );
    for (hosts, paths) in [(1, 1), (1_000, 1), (1, 10_000), (10_000, 1), (100, 100), (40_000, 1)] {
        let entry = |route: Arc<HttpRoute>| (route.id.clone(), (route, ()));
        let mut routes: Routes<()> = (0..hosts).map(|host| entry(route(host, paths))).collect();
        let compile = |routes: &Routes<()>, previous: Option<&RouteTable<()>>| {
            RouteTable::compile(&listener(), HostSelection::FallThrough, routes, previous, &[])
        };
        let before = resident();
        let started = Instant::now();
        let table = compile(&routes, None);
        let compiled = started.elapsed();
        let grown = resident().saturating_sub(before) / (hosts * paths);
        let (id, new) = entry(route(hosts / 2, paths));
        routes.insert(id, new);
        let started = Instant::now();
        let again = compile(&routes, Some(&table));
        let changed = started.elapsed();
        drop(again);
        // A fixed set of requests, so that the cache sees the same number of them in every case.
        let requests: Vec<_> = (0..64)
            .map(|n| Asked {
                host: format!("host{}.example.com", n * 7919 % hosts),
                path: format!("/api/v1/p{}/item", n * 104_729 % paths),
            })
            .collect();
        let started = Instant::now();
        for request in requests.iter().cycle().take(LOOKUPS) {
            black_box(table.find(black_box(request)).unwrap());
        }
        let each = started.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64;
        let base = *base.get_or_insert(each);
        println!(
            "{:>14} {each:>12.0} {:>8.2} {:>14.2} {:>18.2} {grown:>10}",
            format!("{hosts}×{paths}"),
            each / base,
            compiled.as_secs_f64() * 1e3,
            changed.as_secs_f64() * 1e3,
        );
    }
}
