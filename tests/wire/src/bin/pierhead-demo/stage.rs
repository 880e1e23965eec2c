//! What the demo plays on: namespaces, two hosts with backends, a copy of the manifests, the gate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pierhead_wire::backend::Host;
use pierhead_wire::client::Client;
use pierhead_wire::config::Config;
use pierhead_wire::gate::{self, ADMIN, Gate};
use pierhead_wire::net::{HOST_A, HOST_B, NODE, Net, POOL_V4};
use pierhead_wire::pki::Authority;

/// Names for a person to type start so.
const PREFIX: &str = "pierhead-demo";

pub(crate) struct Stage {
    pub(crate) gate: Gate,
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) authority: Authority,
    pierhead: PathBuf,
    // Below: only to live as long as the rest.
    _hosts: [Host; 2],
    net: Net,
}

impl Stage {
    pub(crate) fn set(pierhead: &Path, manifests: &Path) -> Result<Self> {
        clear_stage()?;
        let net = Net::named(PREFIX)?;
        let hosts = [Host::start(&net.a)?, Host::start(&net.b)?];
        for (host, name, pair) in [(&hosts[0], "red", HOST_A), (&hosts[1], "blue", HOST_B)] {
            host.http(name, pair.v4_at(8080))?;
            host.tcp(name, pair.v4_at(9000))?;
            host.udp(name, pair.v4_at(5300))?;
        }
        hosts[0].websocket("red", HOST_A.v4_at(8081))?;

        // The demo changes its manifests while it runs, so it works on a copy. No key is kept in the repository: the
        // certificate is made here.
        let config = Config::empty()?;
        for entry in fs::read_dir(manifests).with_context(|| format!("cannot list {}", manifests.display()))? {
            let entry = entry?;
            config.write(&entry.file_name().to_string_lossy(), &fs::read_to_string(entry.path())?)?;
        }
        let authority = Authority::new()?;
        config.write(
            "certificate.yaml",
            &authority
                .leaf(&["shop.demo", "live.demo", "chat.demo", "talk.demo"])?
                .secret("demo"),
        )?;
        config.write("authority.pem", &authority.pem())?;

        let mut command = Command::new(pierhead);
        command.arg("standalone").arg("--config").arg(config.path());
        command.args([
            "--address-pool",
            POOL_V4,
            "--ebpf",
            "auto",
            "--admin",
            &ADMIN.to_string(),
        ]);
        command.arg("--state-dir").arg(config.state());
        let gate = Gate::spawn(&net.node, command)?;
        gate.ready()?;
        let client = Client::new(&net.client);
        Ok(Self {
            gate,
            client,
            config,
            authority,
            pierhead: pierhead.to_owned(),
            _hosts: hosts,
            net,
        })
    }

    pub(crate) fn introduce(&self) {
        println!();
        println!("  client 10.0.1.2 ── node {} ─┬─ red  {}", NODE.v4, HOST_A.v4);
        println!("                                     └─ blue {}", HOST_B.v4);
        println!("  On the node: pierhead standalone --config examples/quickstart --address-pool {POOL_V4}");
        println!(
            "  Gateway `shop` is 10.96.0.10; Ingress is the node itself, {}.",
            NODE.v4
        );
        println!();
    }

    /// What to try from another shell.
    pub(crate) fn invite(&self) {
        let client = format!("ip netns exec {}", self.net.client.name());
        let inside = format!(
            "nsenter --net=/run/netns/{} {}",
            self.net.node.name(),
            self.pierhead.display()
        );
        let folder = self.config.path().display();
        println!("\nIt stays up until Ctrl-C. Try from another shell:\n");
        println!("  {client} curl -s --resolve shop.demo:80:10.96.0.10 http://shop.demo/");
        println!(
            "  {client} curl -s --resolve shop.demo:443:10.96.0.10 --cacert {folder}/authority.pem https://shop.demo/"
        );
        println!(
            "  {client} curl -s --resolve blog.demo:80:{} http://blog.demo/api",
            NODE.v4
        );
        println!("  {inside} status");
        println!(
            "  nsenter --net=/run/netns/{} curl -s http://{ADMIN}/metrics",
            self.net.node.name()
        );
        println!("  edit {folder}/routes.yaml and ask again");
    }

    /// Stops the gate and checks that it left nothing behind that harms.
    pub(crate) fn leave(self) -> Result<()> {
        let (status, log) = self.gate.stop()?;
        ensure!(status.success(), "pierhead ended with {status}:\n{log}");
        gate::uninstall(&self.net.node, &self.pierhead)
    }
}

/// Removes the namespaces of a demo that was killed; refuses while one is running.
fn clear_stage() -> Result<()> {
    for role in ["client", "node", "a", "b"] {
        let name = format!("{PREFIX}-{role}");
        if !Path::new("/run/netns").join(&name).exists() {
            continue;
        }
        let inside = Command::new("ip").args(["netns", "pids", &name]).output()?.stdout;
        let pids = String::from_utf8_lossy(&inside)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        ensure!(
            pids.is_empty(),
            "another demo is running in {name}: end these processes first: {pids}"
        );
        let gone = Command::new("ip").args(["netns", "del", &name]).status()?;
        ensure!(gone.success(), "cannot remove the namespace {name} of an earlier demo");
    }
    Ok(())
}
