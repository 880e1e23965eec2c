//! How long a translation takes: from scratch, again after one route changed, and again after the endpoints of one Service
//! changed. Every route has a host, a Service and an EndpointSlice of its own; an HTTPRoute has two rules that share their
//! traffic between its Service and its neighbour's. `cargo bench -p pierhead-translate [-- name]`.
//!
//! Processor time of this thread; dropping the old translation is part of a round, as it is for who swaps one for the next.

use std::{fs, hint::black_box, io::Write as _, sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::Ingress};
use pierhead_gateway_api::{Gateway, HTTPRoute};
use pierhead_translate::{Settings, Translation, World, translate, translate_from};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ROUNDS: usize = 7;

fn object<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("a valid object"))
}

fn ingress(i: usize, path: &str) -> Arc<Ingress> {
    let backend = json!({"service": {"name": format!("app-{i}"), "port": {"number": 80}}});
    object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": "default", "name": format!("app-{i}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"ingressClassName": "pierhead", "rules": [{"host": format!("app-{i}.example"), "http": {"paths": [
            {"path": path, "pathType": "Prefix", "backend": backend},
        ]}}]},
    }))
}

fn http_route(i: usize, count: usize, path: &str) -> Arc<HTTPRoute> {
    let rule = |path: &str| {
        json!({"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [
            {"name": format!("app-{i}"), "port": 80, "weight": 9},
            {"name": format!("app-{}", (i + 1) % count), "port": 80, "weight": 1},
        ]})
    };
    object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "default", "name": format!("app-{i}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"name": "gateway"}], "hostnames": [format!("app-{i}.example")],
            "rules": [rule(path), rule("/api")],
        },
    }))
}

fn slice(i: usize, octet: u8) -> Arc<EndpointSlice> {
    let name = format!("app-{i}");
    let endpoints: Vec<Value> = (1..4)
        .map(|n| json!({"addresses": [format!("10.{}.{}.{}", i / 256, i % 256, octet + n)]}))
        .collect();
    object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
    }))
}

fn services(count: usize) -> World {
    let mut world = World::default();
    for i in 0..count {
        let name = format!("app-{i}");
        let service: Arc<Service> = object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
            "spec": {"ports": [{"port": 80}]},
        }));
        world.services.insert("default", &name, service);
        world.endpoint_slices.insert("default", &name, slice(i, 0));
    }
    world
}

fn ingresses(count: usize) -> World {
    let mut world = services(count);
    for i in 0..count {
        world.ingresses.insert("default", &format!("app-{i}"), ingress(i, "/"));
    }
    world
}

fn http_routes(count: usize) -> World {
    let mut world = services(count);
    let gateway: Arc<Gateway> = object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "default", "name": "gateway"},
        "spec": {"gatewayClassName": "pierhead", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }));
    world.gateways.insert("default", "gateway", gateway);
    for i in 0..count {
        let route = http_route(i, count, "/");
        world.http_routes.insert("default", &format!("app-{i}"), route);
    }
    world
}

/// Processor time of this thread as the scheduler counts it, which is in nanoseconds.
fn spent() -> Duration {
    // Going to sleep and back brings the counter up to date.
    std::thread::sleep(Duration::from_micros(50));
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// The cheapest of some rounds.
fn measure(mut work: impl FnMut() -> Translation) -> Duration {
    let round = |_| {
        let start = spent();
        drop(black_box(work()));
        spent().saturating_sub(start)
    };
    (0..ROUNDS).map(round).min().expect("at least one round")
}

fn bench(name: &str, count: usize, mut world: World, change: impl FnOnce(&mut World)) {
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.implied_class = Some("pierhead".into());
    settings.machine_addresses = vec!["192.0.2.1".parse().expect("an address")];
    let first = translate(&world, &settings);
    assert_eq!((first.snapshot.routes.len(), first.problems.len()), (count, 0));
    let scratch = measure(|| translate(&world, &settings));
    let again = measure(|| translate_from(&world, &settings, Some(&first)));
    world.endpoint_slices.insert("default", "app-7", slice(7, 100));
    let endpoints = measure(|| translate_from(&world, &settings, Some(&first)));
    let second = translate_from(&world, &settings, Some(&first));
    change(&mut world);
    let route = measure(|| translate_from(&world, &settings, Some(&second)));
    assert_ne!(first.snapshot.endpoints, second.snapshot.endpoints);
    let ms = |d: Duration| format!("{:8.2} ms", d.as_secs_f64() * 1e3);
    writeln!(
        std::io::stdout(),
        "{count:6} {name}: scratch {}, nothing changed {}, one EndpointSlice {}, one route {}",
        ms(scratch),
        ms(again),
        ms(endpoints),
        ms(route),
    )
    .expect("stdout");
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    for count in [3_000, 5_000, 40_000] {
        if runs("HTTPRoutes") {
            bench("HTTPRoutes", count, http_routes(count), |world| {
                let route = http_route(7, count, "/changed");
                world.http_routes.insert("default", "app-7", route);
            });
        }
    }
    if runs("Ingresses") {
        bench("Ingresses", 5_000, ingresses(5_000), |world| {
            world.ingresses.insert("default", "app-7", ingress(7, "/changed"));
        });
    }
}
