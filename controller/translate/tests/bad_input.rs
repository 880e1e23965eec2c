//! Objects that pass a schema and make no sense, or are very many or very large: each hurts what names it, and nothing else.

#[path = "golden/invariants.rs"]
mod invariants;
#[path = "golden/objects.rs"]
mod objects;

use std::{fs, path::Path, time::Duration};

use fastrand::Rng;
use objects::{documents, put};
use pierhead_translate::{Settings, Translation, World, translate};
use serde_json::{Value, json};

fn settings() -> Settings {
    let mut settings = Settings::new("2026-11-23T12:00:00Z".parse().expect("a timestamp"));
    settings.implied_class = Some("pierhead".into());
    settings.machine_addresses = vec!["192.0.2.10".parse().expect("an address")];
    settings
}

fn checked(world: &World) -> Translation {
    let translation = translate(world, &settings());
    invariants::check(&translation).expect("invariants");
    translation
}

fn add(world: &mut World, object: Value) {
    put(world, object).expect("a known kind");
}

fn gateway(name: &str, listeners: &[Value]) -> Value {
    json!({"kind": "Gateway", "metadata": {"name": name}, "spec": {"gatewayClassName": "pierhead", "listeners": listeners}})
}

fn service(name: &str) -> Value {
    json!({"kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

fn route(name: &str) -> Value {
    json!({"kind": "HTTPRoute", "metadata": {"name": name}, "spec": {
        "parentRefs": [{"name": "gateway"}], "hostnames": [format!("{name}.example")],
        "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
    }})
}

/// Conditions of type `kind` that are True, in whatever the status has.
fn true_conditions(status: &Value, kind: &str) -> usize {
    match status {
        Value::Array(items) => items.iter().map(|item| true_conditions(item, kind)).sum(),
        Value::Object(map) if map.get("type").is_some_and(|t| t == kind) => {
            usize::from(map.get("status").is_some_and(|s| s == "True"))
        }
        Value::Object(map) => map.values().map(|value| true_conditions(value, kind)).sum(),
        _ => 0,
    }
}

#[test]
fn a_gateway_of_64_listeners_is_served_whole_and_its_sets_too() {
    let mut world = World::default();
    let listener = |i: usize| {
        let (protocol, port) = [("HTTP", 80), ("HTTP", 8080), ("TCP", 9000 + i), ("UDP", 9000 + i)][i % 4];
        let mut listener = json!({"name": format!("l-{i}"), "protocol": protocol, "port": port});
        if protocol == "HTTP" {
            listener["hostname"] = format!("h-{i}.example").into();
        }
        listener
    };
    let mut object = gateway("gateway", &(0..64).map(listener).collect::<Vec<_>>());
    object["spec"]["allowedListeners"] = json!({"namespaces": {"from": "Same"}});
    add(&mut world, object);
    let entries: Vec<Value> = (64..128).map(listener).collect();
    let set = json!({"kind": "ListenerSet", "metadata": {"name": "more"}, "spec": {
        "parentRef": {"name": "gateway"}, "listeners": entries,
    }});
    add(&mut world, set);
    let translation = checked(&world);
    assert_eq!(translation.problems, []);
    let statuses = serde_json::to_value(&translation.statuses).expect("statuses");
    // Their own, and one of the Gateway and of the set each.
    assert_eq!(true_conditions(&statuses["gateways"], "Programmed"), 65);
    assert_eq!(true_conditions(&statuses["listener_sets"], "Programmed"), 65);
    let listeners: usize = translation
        .snapshot
        .binds
        .values()
        .map(|bind| bind.listeners.len())
        .sum();
    assert_eq!(listeners, 128);
}

/// Processor time of this thread as the scheduler counts it.
fn spent() -> Duration {
    std::thread::sleep(Duration::from_micros(50));
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("nanoseconds"))
}

/// Five thousand routes on one Gateway: all there, and eight times the routes take nowhere near 64 times the work.
#[test]
fn many_routes_on_one_gateway_cost_no_more_each() {
    let world = |count: usize| {
        let mut world = World::default();
        add(
            &mut world,
            gateway("gateway", &[json!({"name": "http", "protocol": "HTTP", "port": 80})]),
        );
        for i in 0..count {
            add(&mut world, service(&format!("app-{i}")));
            add(&mut world, route(&format!("app-{i}")));
        }
        world
    };
    let cost = |world: &World| {
        let round = |_| {
            let start = spent();
            let translation = translate(world, &settings());
            let cost = spent() - start;
            (cost, translation.snapshot.routes.len())
        };
        (0..3).map(round).min().expect("rounds")
    };
    let (few, few_routes) = cost(&world(625));
    let (many, many_routes) = cost(&world(5_000));
    assert_eq!((few_routes, many_routes), (625, 5_000));
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    assert!(
        ratio < 30.0,
        "8 times the routes cost {ratio:.1} times the processor time"
    );
}

/// As large as the API server lets one be.
#[test]
fn a_secret_of_a_megabyte_is_refused_or_read_and_the_others_serve() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/lib");
    let text = fs::read_to_string(lib.join("foo-tls.yaml")).expect("foo-tls.yaml");
    let good = documents(&text).expect("YAML").remove(0);
    let mut huge = good.clone();
    let mut noise = good.clone();
    for (secret, name) in [(&mut huge, "huge"), (&mut noise, "noise")] {
        secret["metadata"]["name"] = name.into();
    }
    let field = if good.get("stringData").is_some() {
        "stringData"
    } else {
        "data"
    };
    let certificate = good[field]["tls.crt"].as_str().expect("tls.crt").to_owned();
    if field == "stringData" {
        huge[field]["tls.crt"] = certificate.repeat((1 << 20) / certificate.len()).into();
    } else {
        huge[field]["ballast"] = "QUFB".repeat(1 << 18).into();
    }
    noise[field]["tls.crt"] = "QUFB".repeat(1 << 18).into();
    let listener = |name: &str, port: u16, secret: &str| json!({"name": name, "protocol": "HTTPS", "port": port, "tls": {"certificateRefs": [{"name": secret}]}});
    let mut world = World::default();
    let mut good = good;
    good["metadata"]["name"] = "good".into();
    for secret in [good, huge, noise] {
        add(&mut world, secret);
    }
    let listeners = [
        listener("good", 443, "good"),
        listener("huge", 444, "huge"),
        listener("noise", 445, "noise"),
    ];
    add(&mut world, gateway("gateway", &listeners));
    let translation = checked(&world);
    let status = serde_json::to_value(&translation.statuses.gateways).expect("statuses");
    let listeners = status["default/gateway"]["listeners"].as_array().expect("listeners");
    let programmed: Vec<usize> = listeners.iter().map(|l| true_conditions(l, "Programmed")).collect();
    assert_eq!(programmed, [1, 1, 0], "{:?}", translation.problems);
}

const TEXTS: [&str; 22] = [
    "",
    " ",
    "*",
    "*.",
    "*.*",
    ".",
    "-",
    "/",
    "//",
    "/../..",
    "\u{0}",
    "\u{10ffff}\u{202e}",
    "0",
    "-1",
    "65536",
    "999999999999999999999h",
    "::ffff:0.0.0.0/0",
    "0.0.0.0",
    "255.255.255.255/33",
    "xn--",
    "((((((((((a*)*)*)*)*)*)*)*)*)*",
    "default/gateway",
];

/// Changes one place of a document to something that no author meant.
fn spoil(value: &mut Value, dice: &mut Rng, long: &str) {
    match value {
        Value::Object(map) if !map.is_empty() && dice.usize(..8) > 0 => {
            let at = dice.usize(..map.len());
            let key = map.keys().nth(at).expect("a key").clone();
            if dice.usize(..24) == 0 {
                map.shift_remove(&key);
            } else {
                spoil(&mut map[&key], dice, long);
            }
        }
        Value::Array(items) if !items.is_empty() && dice.usize(..8) > 0 => {
            let at = dice.usize(..items.len());
            match dice.usize(..8) {
                0 => drop(items.remove(at)),
                1 => {
                    let twice = items[at].clone();
                    items.insert(at, twice);
                }
                _ => spoil(&mut items[at], dice, long),
            }
        }
        // Mostly of the same type: what has another shape than its type never reaches translation.
        Value::String(text) if dice.usize(..16) > 0 => {
            let at = dice.usize(..TEXTS.len() + 1);
            *text = TEXTS.get(at).map_or_else(|| long.to_owned(), |text| (*text).to_owned());
        }
        Value::Number(number) if dice.usize(..16) > 0 => *number = [0, 1, 80, 65535][dice.usize(..4)].into(),
        other => {
            *other = match dice.usize(..6) {
                0 => json!([0, -1, 1, 65535, 65536, i64::MAX, i64::MIN][dice.usize(..7)]),
                1 => json!(u64::MAX),
                2 => Value::Null,
                3 => json!([true, false][dice.usize(..2)]),
                4 if dice.usize(..8) == 0 => long.into(),
                _ => TEXTS[dice.usize(..TEXTS.len())].into(),
            };
        }
    }
}

fn cases(dir: &Path, found: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            cases(&path, found);
        } else {
            let text = fs::read_to_string(&path).expect("a case");
            let input = text.split("\n--- # expected\n").next().expect("a part");
            found.push(input.to_owned());
        }
    }
}

/// Every golden case with its objects spoiled: nothing panics, nothing breaks an invariant, and one translation is like the
/// next. Objects that no longer have the shape of their type are left out, as they would be in a watch.
#[test]
fn nonsense_breaks_nothing() {
    let mut inputs = Vec::new();
    cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata"), &mut inputs);
    let long = "x".repeat(1 << 16);
    let (mut used, mut dropped) = (0, 0);
    for (seed, input) in inputs.iter().enumerate() {
        let objects: Vec<Value> = documents(input)
            .expect("YAML")
            .into_iter()
            .filter(|document| document.get("kind").is_some_and(|kind| kind != "Settings"))
            .collect();
        let mut dice = Rng::with_seed(seed as u64);
        for _ in 0..8 {
            let mut world = World::default();
            let mut shown = Vec::new();
            for object in &objects {
                let mut object = object.clone();
                for _ in 0..dice.usize(..4) {
                    let part = if dice.usize(..10) == 0 { "metadata" } else { "spec" };
                    if let Some(part) = object.get_mut(part) {
                        spoil(part, &mut dice, &long);
                    }
                }
                shown.push(object.clone());
                match put(&mut world, object) {
                    Ok(()) => used += 1,
                    Err(_) => dropped += 1,
                }
            }
            let translation = std::panic::catch_unwind(|| translate(&world, &settings()));
            let Ok(translation) = translation else {
                panic!("seed {seed}: translation panics on {}", json!(shown));
            };
            if let Err(why) = invariants::check(&translation) {
                panic!("seed {seed}: {why} on {}", json!(shown));
            }
        }
    }
    assert!(
        used > 2 * dropped && used > 3_000,
        "{used} objects used, {dropped} had no shape"
    );
}

#[test]
fn what_was_created_in_the_same_second_is_ordered_by_name() {
    let mut world = World::default();
    let stamped = |mut object: Value| {
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        object
    };
    for name in ["gateway", "younger-by-name"] {
        add(
            &mut world,
            stamped(gateway(
                name,
                &[json!({"name": "tcp", "protocol": "TCP", "port": 9000})],
            )),
        );
    }
    for name in ["b", "a"] {
        add(&mut world, service(name));
        let route = json!({"kind": "TCPRoute", "metadata": {"name": name}, "spec": {
            "parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
        }});
        add(&mut world, stamped(route));
    }
    let translation = checked(&world);
    let bind = translation.snapshot.binds.values().next().expect("a bind");
    assert_eq!(&*bind.listeners[0].id.owner.name, "gateway");
    let listener = format!("{:?}", bind.listeners[0].kind);
    assert!(
        listener.contains("default/a:80") && !listener.contains("default/b:80"),
        "{listener}"
    );
    let (_, loser) = translation.statuses.gateways.iter().nth(1).expect("two");
    assert!(format!("{loser:?}").contains("ProtocolConflict"), "{loser:?}");
}
