//! Starts the candidates with configurations that do the same work, and stops them by pid.
//!
//! Each configuration is a file in `benches/peers/`; words between at-signs are filled in here.

mod bare;
mod routes;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cpu;

pub(crate) use bare::run as forward;
pub(crate) use routes::http_route;

/// All that route HTTP, in the order of tables.
pub(crate) const ALL: [&str; 4] = ["pierhead", "nginx", "haproxy", "envoy"];

/// Forwards and does nothing else: no candidate, but what is left to win. It has neither TLS nor two protocols.
pub(crate) const BARE: &str = "bare";
/// What rigs can take whose work it can do.
pub(crate) const ALL_AND_BARE: [&str; 5] = ["pierhead", "nginx", "haproxy", "envoy", BARE];
/// The word that makes this program one.
pub(crate) const FORWARD: &str = "forward";

/// Hosts × prefixes that every candidate routes.
pub(crate) const HOSTS: usize = 250;
pub(crate) const PREFIXES: [&str; 4] = ["/api/v1/users", "/api/v1/orders", "/static", "/health"];
/// gRPC services, at hosts of their own.
pub(crate) const SERVICES: [&str; 4] = ["bench.Users", "bench.Orders", "bench.Stock", "bench.Health"];

/// What is routed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// HTTP hosts, one route object each.
    pub(crate) hosts: usize,
    /// Of each HTTP host, a rule each.
    pub(crate) prefixes: &'static [&'static str],
    /// gRPC hosts with [`SERVICES`] each.
    pub(crate) grpc_hosts: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            hosts: HOSTS,
            prefixes: &PREFIXES,
            grpc_hosts: HOSTS,
        }
    }
}

/// A proxy that runs.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// HTTP/1.1.
    pub(crate) clear: SocketAddr,
    /// TLS 1.3, HTTP/1.1 or HTTP/2.
    pub(crate) tls: SocketAddr,
    /// HTTP/2 with prior knowledge.
    pub(crate) h2c: SocketAddr,
    process: Child,
}

impl Peer {
    /// Whether it can take part in work that needs a proxy: TLS, or another protocol on each side.
    pub(crate) fn is_proxy(&self) -> bool {
        self.name != BARE
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has used of the processor since it started.
    pub(crate) fn run_time(&self) -> Result<Duration> {
        cpu::run_time(self.pid())
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where configurations go and what they name.
pub(crate) struct Site<'a> {
    /// Holds `tls.crt`, `tls.key` and `tls.pem`, both in one.
    pub(crate) directory: &'a Path,
    /// HTTP/1.1.
    pub(crate) backend: SocketAddr,
    /// gRPC over HTTP/2 with prior knowledge.
    pub(crate) grpc: SocketAddr,
    /// Both again, which look for no forwarded headers: for [`BARE`].
    pub(crate) plain: Option<[SocketAddr; 2]>,
    pub(crate) envoy: &'a Path,
    pub(crate) shape: Shape,
    /// Put before the program: `taskset` unless a rig says otherwise.
    pub(crate) under: Vec<String>,
}

impl<'a> Site<'a> {
    pub(crate) fn new(directory: &'a Path, backend: SocketAddr, grpc: SocketAddr, envoy: &'a Path) -> Self {
        Self {
            directory,
            backend,
            grpc,
            plain: None,
            envoy,
            shape: Shape::default(),
            under: ["taskset", "-c", &cpu::PROXY_CORE.to_string()]
                .map(str::to_owned)
                .to_vec(),
        }
    }

    /// Starts these candidates, each on ports of its own.
    pub(crate) fn start(&self, names: &[&'static str]) -> Result<Vec<Peer>> {
        names.iter().map(|name| self.start_one(name)).collect()
    }

    fn start_one(&self, name: &'static str) -> Result<Peer> {
        let number = ALL_AND_BARE
            .iter()
            .position(|known| *known == name)
            .context("unknown candidate")?;
        let port = |at: usize| SocketAddr::from(([127, 0, 0, 1], 18_000 + (number * 10 + at) as u16));
        let [clear, tls, h2c, admin] = [0, 1, 2, 9].map(port);
        let place = Place {
            site: self,
            clear,
            tls,
            h2c,
        };
        let folder = self.directory.join(name);
        fs::create_dir_all(&folder)?;
        let (program, arguments) = match name {
            "nginx" => {
                let config = place.fill(include_str!("../../peers/nginx.conf"), &routes::nginx(&self.shape));
                let file = write(&folder, "nginx.conf", &config)?;
                ("nginx".into(), vec!["-c".to_owned(), file])
            }
            "haproxy" => {
                write(&folder, "hosts.map", &routes::haproxy(&self.shape))?;
                let config = place.fill(include_str!("../../peers/haproxy.cfg"), "");
                let file = write(&folder, "haproxy.cfg", &config)?;
                ("haproxy".into(), vec!["-f".to_owned(), file])
            }
            "envoy" => {
                let config = place.fill(include_str!("../../peers/envoy.yaml"), &routes::envoy(&self.shape));
                let file = write(&folder, "envoy.yaml", &config)?;
                let words = [
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "-l",
                    "warning",
                    "-c",
                    &file,
                ];
                (self.envoy.to_owned(), words.map(str::to_owned).to_vec())
            }
            "pierhead" => {
                let config = folder.join("manifests");
                fs::create_dir_all(&config)?;
                let tls = routes::pierhead_secret(self.directory)?;
                write(
                    &config,
                    "gate.yaml",
                    &place.fill(include_str!("../../peers/pierhead.yaml"), &tls),
                )?;
                write(&config, "routes.json", &routes::pierhead(&self.shape)?)?;
                let [config, state] = [config, folder.join("state")].map(|path| path.display().to_string());
                let admin = admin.to_string();
                let words = [
                    "standalone",
                    "--ebpf=off",
                    "--workers=1",
                    "--access-log=off",
                    "--admin",
                    &admin,
                    "--config",
                    &config,
                    "--state-dir",
                    &state,
                ];
                (binary("pierhead")?, words.map(str::to_owned).to_vec())
            }
            BARE => {
                let [backend, grpc] = self.plain.context("backends that look for no forwarded headers")?;
                let words = [clear, backend, h2c, grpc].map(|address| address.to_string());
                let words = [FORWARD.to_owned()].into_iter().chain(words).collect();
                (std::env::current_exe()?, words)
            }
            other => bail!("unknown candidate {other}; known: {}", ALL.join(" ")),
        };
        let mut words = self.under.clone();
        words.push(program.display().to_string());
        words.extend(arguments);
        let log = File::create(folder.join("output"))?;
        let process = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}: is it installed? `cargo xtask bench` does"))?;
        let mut peer = Peer {
            name,
            clear,
            // What has no TLS is not asked for it.
            tls: if name == BARE { clear } else { tls },
            h2c,
            process,
        };
        await_ports(&mut peer, &folder)?;
        Ok(peer)
    }
}

/// One candidate's addresses, to be filled in.
struct Place<'a> {
    site: &'a Site<'a>,
    clear: SocketAddr,
    tls: SocketAddr,
    h2c: SocketAddr,
}

impl Place<'_> {
    fn fill(&self, text: &str, routes: &str) -> String {
        text.replace("@ROUTES@", routes)
            .replace("@BACKEND@", &self.site.backend.to_string())
            .replace("@BACKEND_PORT@", &self.site.backend.port().to_string())
            .replace("@GRPC@", &self.site.grpc.to_string())
            .replace("@GRPC_PORT@", &self.site.grpc.port().to_string())
            .replace("@CLEAR@", &self.clear.port().to_string())
            .replace("@TLS@", &self.tls.port().to_string())
            .replace("@H2C@", &self.h2c.port().to_string())
            .replace("@DIR@", &self.site.directory.display().to_string())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn await_ports(peer: &mut Peer, folder: &Path) -> Result<()> {
    // Under valgrind a start takes long.
    let deadline = Instant::now() + Duration::from_secs(120);
    for address in [peer.clear, peer.tls, peer.h2c] {
        while TcpStream::connect(address).is_err() {
            let ended = peer.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(folder.join("output")).unwrap_or_default();
                bail!("{} does not listen on {address}: {said}", peer.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// A program of ours, built beside this one.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    ensure!(
        beside.exists(),
        "{} is missing: `cargo xtask bench` builds it",
        beside.display()
    );
    Ok(beside)
}
