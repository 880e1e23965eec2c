//! A case file: options, settings and objects.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use jiff::Timestamp;
use pierhead_model::OwnedPrefix;
use pierhead_translate::{Bundle, Held, ObjectName, Settings, World};
use serde::Deserialize;

use crate::objects::{documents, put};

/// The document `kind: Settings`. What it leaves out is as in a cluster, on a machine with the address 192.0.2.10.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    kind: String,
    /// What the expectation shows; all that is not empty, if not given.
    pub(crate) show: Vec<String>,
    /// Files of `testdata/lib/` whose documents belong to the input.
    include: Vec<String>,
    now: Option<Timestamp>,
    implied_class: Option<String>,
    inject_default_class: bool,
    watch_ingress_without_class: bool,
    ingress_http_port: Option<u16>,
    ingress_https_port: Option<u16>,
    default_certificate: Option<String>,
    address_pools: Vec<String>,
    machine_addresses: Option<Vec<IpAddr>>,
    nodes: Option<Vec<String>>,
    /// Who announced an address until now.
    held: BTreeMap<String, Vec<String>>,
    allocations: BTreeMap<String, Vec<IpAddr>>,
    service_ports: Option<(u16, u16)>,
    /// False: as a replica that is not the leader.
    allocate: Option<bool>,
    /// CustomResourceDefinitions by name: `version channel`.
    bundles: BTreeMap<String, String>,
    without_cluster_trust_bundles: bool,
}

pub(crate) struct Case {
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) world: World,
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectName::new(namespace, name)
}

impl Options {
    fn settings(&self) -> Settings {
        let now = self
            .now
            .unwrap_or_else(|| "2026-11-23T12:00:00Z".parse().expect("a timestamp"));
        let defaults = Settings::new(now);
        Settings {
            implied_class: self.implied_class.as_deref().map(Into::into),
            inject_default_class: self.inject_default_class,
            watch_ingress_without_class: self.watch_ingress_without_class,
            ingress_http_port: self.ingress_http_port.unwrap_or(defaults.ingress_http_port),
            ingress_https_port: self.ingress_https_port.unwrap_or(defaults.ingress_https_port),
            default_certificate: self.default_certificate.as_deref().map(object_name),
            address_pools: self
                .address_pools
                .iter()
                .map(|pool| pool.parse().expect("a CIDR"))
                .collect(),
            nodes: self
                .nodes
                .as_ref()
                .map(|names| names.iter().map(|name| name.as_str().into()).collect()),
            held: self
                .held
                .iter()
                .map(|(address, by)| {
                    let by = by.iter().map(|name| name.as_str().into()).collect();
                    (OwnedPrefix(address.parse().expect("a prefix")), Held { by, round: 0 })
                })
                .collect(),
            machine_addresses: self
                .machine_addresses
                .clone()
                .unwrap_or_else(|| vec![IpAddr::from([192, 0, 2, 10])]),
            allocations: self
                .allocations
                .iter()
                .map(|(name, ips)| (object_name(name), ips.clone()))
                .collect(),
            service_ports: self
                .service_ports
                .map_or_else(|| defaults.service_ports.clone(), |(first, last)| first..=last),
            allocate: self.allocate.unwrap_or(true),
            ..defaults
        }
    }
}

impl Case {
    pub(crate) fn parse(input: &str, lib: &Path) -> Result<Self, String> {
        let mut given = documents(input)?;
        let has_settings = given
            .first()
            .is_some_and(|d| d.get("kind").is_some_and(|k| k == "Settings"));
        let options: Options = if has_settings {
            serde_json::from_value(given.remove(0)).map_err(|e| format!("Settings: {e}"))?
        } else {
            Options::default()
        };
        let mut world = World {
            without_cluster_trust_bundles: options.without_cluster_trust_bundles,
            ..World::default()
        };
        for (name, text) in &options.bundles {
            let (version, channel) = text.split_once(' ').unwrap_or((text, ""));
            let bundle = Bundle {
                version: version.to_owned(),
                channel: channel.to_owned(),
            };
            world.bundles.insert(name.clone(), bundle);
        }
        for file in &options.include {
            let path = lib.join(file);
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            for document in documents(&text)? {
                put(&mut world, document)?;
            }
        }
        for document in given {
            put(&mut world, document)?;
        }
        Ok(Self {
            settings: options.settings(),
            options,
            world,
        })
    }
}
