//! How long a translation takes: 5,000 Ingresses, each with its own host, Service and EndpointSlice; from scratch, and again
//! after nothing and after one thing changed. `cargo bench -p pierhead-translate`.

use std::{
    hint::black_box,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::Ingress};
use pierhead_translate::{Settings, Translation, World, translate, translate_from};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const ROUTES: usize = 5_000;
const ROUNDS: usize = 10;

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

fn world() -> World {
    let mut world = World::default();
    for i in 0..ROUTES {
        let name = format!("app-{i}");
        let service: Arc<Service> = object(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
            "spec": {"ports": [{"port": 80}]},
        }));
        let endpoints: Vec<Value> = (0..3)
            .map(|n| json!({"addresses": [format!("10.{}.{}.{n}", i / 256, i % 256)]}))
            .collect();
        let slice: Arc<EndpointSlice> = object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
        }));
        world.ingresses.insert("default", &name, ingress(i, "/"));
        world.services.insert("default", &name, service);
        world.endpoint_slices.insert("default", &name, slice);
    }
    world
}

/// The fastest of some rounds.
fn measure(mut work: impl FnMut() -> Translation) -> Duration {
    let round = |_| {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    };
    (0..ROUNDS).map(round).min().expect("at least one round")
}

fn main() {
    let mut world = world();
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.implied_class = Some("pierhead".into());
    let first = translate(&world, &settings);
    assert_eq!((first.snapshot.routes.len(), first.problems.len()), (ROUTES, 0));
    let scratch = measure(|| translate(&world, &settings));
    let again = measure(|| translate_from(&world, &settings, Some(&first)));
    world.ingresses.insert("default", "app-7", ingress(7, "/changed"));
    let changed = measure(|| translate_from(&world, &settings, Some(&first)));
    writeln!(
        std::io::stdout(),
        "{ROUTES} Ingresses: from scratch {scratch:.1?}, sharing with an equal one {again:.1?}, after one change {changed:.1?}"
    )
    .expect("stdout");
}
