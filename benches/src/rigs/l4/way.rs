//! A street of namespaces of its own for each way from client to server.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use pierhead_wire::{
    gate::{self, Gate},
    net::{GATE, HOST_A, Net},
};
use tempfile::TempDir;

use crate::{cpu, peers};

/// Where the server listens, for the first binds.
pub(super) const SERVER: u16 = 9000;
/// Binds that have an endpoint in common, as many as Pierhead can tell apart behind one.
pub(super) const BINDS_OF_AN_ENDPOINT: u16 = 4;
/// The first port of the gate; as many follow as there are binds.
pub(super) const FIRST: u16 = 10_000;
/// More flows than this need tables larger than those of Pierhead and of the kernel are.
pub(super) const ORDINARY_FLOWS: usize = 1 << 17;
/// Room for flows in larger tables.
const MAX_FLOWS: u32 = 1 << 20;

/// The server's port for a bind.
fn server(bind: u16) -> u16 {
    SERVER + bind / BINDS_OF_AN_ENDPOINT
}

/// The server's ports for so many binds.
pub(super) fn servers(binds: u16) -> std::ops::Range<u16> {
    SERVER..SERVER + binds.div_ceil(BINDS_OF_AN_ENDPOINT)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The client knows the server's address; the node only forwards.
    Route,
    Full,
    Steer,
    Off,
    Haproxy,
    Nft,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Route => "plain route",
            Self::Full => "pierhead",
            Self::Steer => "pierhead steer",
            Self::Off => "pierhead off",
            Self::Haproxy => "haproxy tcp",
            Self::Nft => "nft dnat",
        }
    }
}

/// Room in the kernel's table of connections, which is one for all namespaces; as it was when dropped.
struct Conntrack {
    before: String,
}

impl Conntrack {
    const FILE: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    fn widen() -> Result<Self> {
        let before = fs::read_to_string(Self::FILE).context(Self::FILE)?;
        fs::write(Self::FILE, MAX_FLOWS.to_string()).context(Self::FILE)?;
        Ok(Self { before })
    }
}

impl Drop for Conntrack {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.before);
    }
}

/// Namespaces, and what balances between them.
pub(super) struct Way {
    pub(super) kind: Kind,
    gate: Option<Gate>,
    _conntrack: Option<Conntrack>,
    _directory: TempDir,
    pub(super) net: Net,
}

/// What is pinned stays when the program ends, for its successor; here there is none.
impl Drop for Way {
    fn drop(&mut self) {
        if !matches!(self.kind, Kind::Full | Kind::Steer) {
            return;
        }
        self.gate = None;
        let program = peers::binary("pierhead");
        if let Err(error) = program.and_then(|program| gate::uninstall(&self.net.node, &program)) {
            eprintln!("{error:#}");
        }
    }
}

impl Way {
    /// Lays it out with so many ports of UDP, for so many flows at once.
    pub(super) fn lay(kind: Kind, binds: u16, flows: usize) -> Result<Self> {
        let net = Net::new()?;
        // A client that makes connections as fast as it can needs its ports back.
        net.client.sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        net.client.sysctl("ipv4/tcp_tw_reuse", "1")?;
        net.node.sysctl("ipv4/tcp_tw_reuse", "1")?;
        net.node.sysctl("ipv4/ip_local_port_range", "30000 65535")?;
        let directory = tempfile::tempdir()?;
        let mut way = Self {
            kind,
            gate: None,
            _conntrack: None,
            _directory: directory,
            net,
        };
        match kind {
            Kind::Route => {}
            Kind::Full => way.pierhead("full", binds, flows)?,
            Kind::Steer => way.pierhead("steer", binds, flows)?,
            Kind::Off => way.pierhead("off", binds, flows)?,
            Kind::Haproxy => way.haproxy()?,
            Kind::Nft => way.nft(binds, flows)?,
        }
        Ok(way)
    }

    /// Where the client connects to reach bind number `bind`.
    pub(super) fn address(&self, bind: u16) -> SocketAddr {
        match self.kind {
            Kind::Route => HOST_A.v4_at(server(bind)),
            Kind::Full | Kind::Steer | Kind::Off | Kind::Haproxy | Kind::Nft => GATE.v4_at(FIRST + bind),
        }
    }

    /// CPU time of the proxy, if there is one.
    pub(super) fn run_time(&self) -> Result<Duration> {
        match &self.gate {
            Some(gate) => cpu::run_time(gate.pid()),
            None => Ok(Duration::ZERO),
        }
    }

    fn pierhead(&mut self, mode: &str, binds: u16, flows: usize) -> Result<()> {
        let folder = self._directory.path().join("manifests");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("gate.yaml"), manifests(GATE.v4, binds))?;
        let mut command = pinned(peers::binary("pierhead")?.to_str().context("a path")?);
        command.args([
            "standalone",
            "--workers=1",
            "--access-log=off",
            "--admin=127.0.0.1:9900",
            "--ebpf",
            mode,
        ]);
        if flows > ORDINARY_FLOWS {
            command.arg(format!("--max-flows={MAX_FLOWS}"));
        }
        command.args(["--address-pool", pierhead_wire::net::POOL_V4]);
        command.arg("--config").arg(&folder);
        command.arg("--state-dir").arg(self._directory.path().join("state"));
        let gate = Gate::spawn(&self.net.node, command)?;
        gate.ready()?;
        if mode == "full" {
            let (_, said) = status(&self.net, &["status", "--admin", "127.0.0.1:9900"])?;
            let elsewhere = said.split_whitespace().any(|word| matches!(word, "steered" | "bound"));
            ensure!(!elsewhere, "not everything is in the kernel: {said}");
        }
        self.gate = Some(gate);
        Ok(())
    }

    fn haproxy(&mut self) -> Result<()> {
        self.own_the_address()?;
        let config = include_str!("../../../peers/haproxy-tcp.cfg")
            .replace("@VIP@", &GATE.v4.to_string())
            .replace("@PORT@", &FIRST.to_string())
            .replace("@BACKEND@", &HOST_A.v4_at(SERVER).to_string());
        let file = self._directory.path().join("haproxy.cfg");
        fs::write(&file, config)?;
        let mut command = pinned("haproxy");
        command.arg("-f").arg(file);
        self.gate = Some(Gate::spawn(&self.net.node, command)?);
        Ok(())
    }

    fn nft(&mut self, binds: u16, flows: usize) -> Result<()> {
        let elements: Vec<_> = (0..binds)
            .map(|bind| format!("{} . {} : {} . {}", GATE.v4, FIRST + bind, HOST_A.v4, server(bind)))
            .collect();
        let elements = elements.join(", ");
        let rules = include_str!("../../../peers/dnat.nft")
            .replace("@TCP@", &elements)
            .replace("@UDP@", &elements);
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.net.node.enter(|| nft.spawn())?.context("start nft")?;
        child.stdin.take().context("an input")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "nft: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if flows > ORDINARY_FLOWS {
            self._conntrack = Some(Conntrack::widen()?);
        }
        Ok(())
    }

    /// Gives the gate's address to the node, for those who only bind.
    fn own_the_address(&self) -> Result<()> {
        self.net.node.ip(&format!("addr add {}/32 dev lo\n", GATE.v4))
    }
}

fn status(net: &Net, arguments: &[&str]) -> Result<(std::process::ExitStatus, String)> {
    let mut command = Command::new(peers::binary("pierhead")?);
    command.args(arguments).stdin(Stdio::null());
    let output = net.node.enter(|| command.output())??;
    Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu::PROXY_CORE.to_string(), program]);
    command
}

/// A bind for TCP and so many for UDP: Gateways of as many listeners as one may have, each with a route of its own, to
/// an endpoint for a few of them.
fn manifests(address: Ipv4Addr, binds: u16) -> String {
    const LISTENERS: u16 = 64;
    let mut text = String::new();
    for (protocol, binds) in [("TCP", 1), ("UDP", binds)] {
        let low = protocol.to_lowercase();
        for gateway in 0..binds.div_ceil(LISTENERS) {
            let _ = write!(
                text,
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {low}-{gateway}}}\nspec:\n  \
                 gatewayClassName: pierhead\n  addresses: [{{type: IPAddress, value: {address}}}]\n  listeners:\n"
            );
            for bind in gateway * LISTENERS..binds.min((gateway + 1) * LISTENERS) {
                let port = FIRST + bind;
                let _ = writeln!(text, "  - {{name: l{bind}, protocol: {protocol}, port: {port}}}");
            }
            text.push_str("---\n");
        }
        for bind in 0..binds {
            let (gateway, server) = (bind / LISTENERS, server(bind));
            let _ = write!(
                text,
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {protocol}Route\nmetadata: {{name: r{bind}}}\nspec:\n  \
                 parentRefs: [{{name: {low}-{gateway}, sectionName: l{bind}}}]\n  \
                 rules: [{{backendRefs: [{{name: {low}-{server}, port: {server}}}]}}]\n---\n"
            );
        }
        for server in servers(binds) {
            let _ = write!(
                text,
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {low}-{server}}}\n\
                 spec: {{ports: [{{name: p, port: {server}, protocol: {protocol}}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {low}-{server}-1, labels: {{kubernetes.io/service-name: {low}-{server}}}}}\n\
                 addressType: IPv4\nports: [{{name: p, port: {server}, protocol: {protocol}}}]\n\
                 endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]\n---\n",
                HOST_A.v4
            );
        }
    }
    text
}
