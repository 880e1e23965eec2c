//! The street with its usual backends, so that a case is only its YAML and what it expects.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;

use crate::backend::Host;
use crate::client::Client;
use crate::config::{Config, service, service_speaking};
use crate::gate::{Gate, Mode};
use crate::net::{FAMILIES, GATE, HOST_A, HOST_B, Net};

/// Makes a test of each case under every mode: `name::off`, `name::steer` and `name::full`.
#[macro_export]
macro_rules! every_mode {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn off() -> anyhow::Result<()> {
                super::$name($crate::gate::Mode::Off)
            }

            #[test]
            fn steer() -> anyhow::Result<()> {
                super::$name($crate::gate::Mode::Steer)
            }

            #[test]
            fn full() -> anyhow::Result<()> {
                super::$name($crate::gate::Mode::Full)
            }
        }
    )+};
}

/// The usual ports of the backends.
pub mod port {
    /// The HTTP echo.
    pub const HTTP: u16 = 8080;
    /// The WebSocket echo.
    pub const WEBSOCKET: u16 = 8081;
    /// The TCP echo that speaks first.
    pub const TCP: u16 = 9000;
    /// The UDP echo.
    pub const UDP: u16 = 5300;
    /// Free for what a case brings itself.
    pub const OWN: u16 = 7000;
}

/// Namespaces, backends called `a` and `b` of every kind on both families, and an empty configuration.
pub struct Street {
    /// What the gate reads. Holds the usual Services from the start.
    pub config: Config,
    /// The first host.
    pub a: Host,
    /// The second host.
    pub b: Host,
    /// The client.
    pub client: Client,
    /// The namespaces; last, so that all else is gone before they are.
    pub net: Net,
}

impl Street {
    /// Everything but the gate.
    pub fn new() -> Result<Self> {
        let net = Net::new()?;
        let a = Host::start(&net.a)?;
        let b = Host::start(&net.b)?;
        for family in FAMILIES {
            usual_backends(&a, "a", HOST_A.of(family))?;
            usual_backends(&b, "b", HOST_B.of(family))?;
        }
        let config = Config::of(&[("services.yaml", &usual_services())])?;
        Ok(Self {
            config,
            a,
            b,
            client: Client::new(&net.client),
            net,
        })
    }

    /// Writes these files and starts the gate on them.
    pub fn gate(&self, mode: Mode, files: &[(&str, &str)]) -> Result<Gate> {
        for (name, text) in files {
            self.config.write(name, text)?;
        }
        Gate::start(&self.net.node, &self.config, mode)
    }

    /// The same with further arguments.
    pub fn gate_with(&self, mode: Mode, files: &[(&str, &str)], args: &[&str]) -> Result<Gate> {
        for (name, text) in files {
            self.config.write(name, text)?;
        }
        let mode = mode.to_string();
        let args: Vec<&str> = ["--ebpf", &mode].iter().chain(args).copied().collect();
        let gate = Gate::launch(&self.net.node, &self.config, &args)?;
        gate.ready()?;
        Ok(gate)
    }
}

fn usual_backends(host: &Host, name: &str, at: IpAddr) -> Result<()> {
    let at = |port| SocketAddr::new(at, port);
    host.http(name, at(port::HTTP))?;
    host.websocket(name, at(port::WEBSOCKET))?;
    host.tcp(name, at(port::TCP))?;
    host.udp(name, at(port::UDP))
}

/// The Services of every case: `a` and `b` (HTTP), `both` (HTTP on both hosts), `none` (without endpoints), `grpc-a`
/// (h2c), `chat` (WebSocket), `lines` and `lines-both` (TCP), `ask` and `ask-both` (UDP), the first of each also as `-v4`
/// and `-v6` with endpoints of that family only, and `own` on port 7000 of host a.
fn usual_services() -> String {
    let a = [HOST_A.v4.into(), HOST_A.v6.into()];
    let b = [HOST_B.v4.into(), HOST_B.v6.into()];
    let both: Vec<IpAddr> = a.into_iter().chain(b).collect();
    [
        service("a", "TCP", port::HTTP, &a),
        service("b", "TCP", port::HTTP, &b),
        service("both", "TCP", port::HTTP, &both),
        service("none", "TCP", port::HTTP, &[]),
        service_speaking("grpc-a", "TCP", Some("kubernetes.io/h2c"), port::HTTP, &a),
        service("chat", "TCP", port::WEBSOCKET, &a),
        service("lines", "TCP", port::TCP, &a),
        service("lines-v4", "TCP", port::TCP, &a[..1]),
        service("lines-v6", "TCP", port::TCP, &a[1..]),
        service("ask-v4", "UDP", port::UDP, &a[..1]),
        service("ask-v6", "UDP", port::UDP, &a[1..]),
        service("lines-both", "TCP", port::TCP, &both),
        service("ask", "UDP", port::UDP, &a),
        service("ask-both", "UDP", port::UDP, &both),
        service("own", "TCP", port::OWN, &[HOST_A.v4.into()]),
    ]
    .join("---\n")
}

/// A Gateway called `gate` at the usual addresses with these listeners (flow-style YAML, one per entry).
pub fn gateway(listeners: &[&str]) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gate}}\nspec:\n  \
         gatewayClassName: pierhead\n  addresses:\n  - {{type: IPAddress, value: '{}'}}\n  - {{type: IPAddress, value: '{}'}}\n  \
         listeners:\n{}",
        GATE.v4,
        GATE.v6,
        listeners
            .iter()
            .map(|listener| format!("  - {listener}\n"))
            .collect::<String>()
    )
}

/// A route of this kind and name on the Gateway `gate`; `spec` is further YAML of its `spec`, indented by two.
pub fn route(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  \
         parentRefs: [{{name: gate}}]\n{spec}\n"
    )
}

/// A listener for HTTP on port 80.
pub const HTTP: &str = "{name: http, protocol: HTTP, port: 80}";
