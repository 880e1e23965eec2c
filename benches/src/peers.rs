//! Starts the candidates with configurations that do the same work, and stops them by pid.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Hosts × prefixes that every candidate routes.
pub(crate) const HOSTS: usize = 250;
pub(crate) const PREFIXES: [&str; 4] = ["/api/v1/users", "/api/v1/orders", "/static", "/health"];

/// A proxy that runs.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) clear: SocketAddr,
    pub(crate) tls: SocketAddr,
    process: Child,
}

impl Peer {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
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

/// Where configurations go and what they name.
pub(crate) struct Site<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) backend: SocketAddr,
    pub(crate) pierhead: PathBuf,
}

/// Starts the candidate called `name` on two ports of its own, pinned to core 0.
pub(crate) fn start(name: &str, number: u16, site: &Site<'_>) -> Result<Peer> {
    let clear = SocketAddr::from(([127, 0, 0, 1], 18_080 + number));
    let tls = SocketAddr::from(([127, 0, 0, 1], 18_443 + number));
    let directory = site.directory;
    let fill = |text: &str, routes: &str| {
        text.replace("@ROUTES@", routes)
            .replace("@BACKEND@", &site.backend.to_string())
            .replace("@CLEAR@", &clear.port().to_string())
            .replace("@TLS@", &tls.port().to_string())
            .replace("@DIR@", &directory.display().to_string())
    };
    let mut command = match name {
        "nginx" => {
            let config = directory.join("nginx.conf");
            fs::write(
                &config,
                fill(&fill(include_str!("../peers/nginx.conf"), &nginx_routes()), ""),
            )?;
            let mut command = pinned("nginx");
            command.arg("-c").arg(config);
            command
        }
        "haproxy" => {
            let config = directory.join("haproxy.cfg");
            fs::write(&config, fill(include_str!("../peers/haproxy.cfg"), ""))?;
            fs::write(directory.join("haproxy.map"), haproxy_map())?;
            let mut command = pinned("haproxy");
            command.arg("-f").arg(config);
            command
        }
        "envoy" => {
            let config = directory.join("envoy.json");
            fs::write(&config, serde_json::to_vec_pretty(&envoy(site, clear, tls))?)?;
            let mut command = pinned("envoy");
            command
                .arg("-c")
                .arg(config)
                .args(["--concurrency", "1", "--base-id", "77", "-l", "warning"]);
            command
        }
        "pierhead" => {
            let config = directory.join("pierhead");
            fs::create_dir_all(&config)?;
            fs::write(
                config.join("gate.json"),
                serde_json::to_vec(&pierhead(site, clear, tls)?)?,
            )?;
            let mut command = pinned(site.pierhead.to_str().context("path of the binary")?);
            command.arg("standalone").arg("--config").arg(config);
            command.args([
                "--ebpf=off",
                "--workers",
                "1",
                "--access-log",
                "off",
                "--admin",
                "127.0.0.1:18999",
            ]);
            command.arg("--state-dir").arg(directory.join("state"));
            command
        }
        other => bail!("unknown candidate {other}; known: pierhead, nginx, haproxy, envoy"),
    };
    let log = File::create(directory.join(format!("{name}.out")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let process = command
        .spawn()
        .with_context(|| format!("start {name}: is it installed? `cargo xtask setup` does"))?;
    let mut peer = Peer {
        name: name.to_owned(),
        clear,
        tls,
        process,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    for address in [clear, tls] {
        while TcpStream::connect(address).is_err() {
            let ended = peer.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(directory.join(format!("{name}.out"))).unwrap_or_default();
                bail!("{name} does not listen on {address}: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(peer)
}

/// A command that will run on core 0 only.
fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

fn nginx_routes() -> String {
    let mut text = String::new();
    for host in 0..HOSTS {
        let _ = writeln!(
            text,
            "    server {{ listen 127.0.0.1:@CLEAR@; listen 127.0.0.1:@TLS@ ssl; server_name h{host}.example.com;"
        );
        for prefix in PREFIXES {
            let _ = writeln!(text, "        location {prefix}/ {{ proxy_pass http://backend; }}");
        }
        text.push_str("    }\n");
    }
    text
}

fn haproxy_map() -> String {
    let mut text = String::new();
    for host in 0..HOSTS {
        for prefix in PREFIXES {
            let _ = writeln!(text, "h{host}.example.com{prefix}/ app");
        }
    }
    text
}

fn envoy(site: &Site<'_>, clear: SocketAddr, tls: SocketAddr) -> serde_json::Value {
    use serde_json::json;
    let address = |a: SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let hosts: Vec<_> = (0..HOSTS)
        .map(|host| {
            let routes: Vec<_> = PREFIXES
                .iter()
                .map(|p| json!({"match": {"path_separated_prefix": p}, "route": {"cluster": "app"}}))
                .collect();
            json!({"name": format!("h{host}"), "domains": [format!("h{host}.example.com")], "routes": routes,
                "request_headers_to_add": [{"header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}},
                    {"header": {"key": "x-forwarded-port", "value": "%DOWNSTREAM_LOCAL_PORT%"}}]})
        })
        .collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gate", "use_remote_address": true,
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    let filters = json!([{"name": "http", "typed_config": manager}]);
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": site.directory.join("tls.crt")}, "private_key": {"filename": site.directory.join("tls.key")}}],
        },
    });
    json!({"static_resources": {
        "listeners": [
            {"name": "clear", "address": address(clear), "filter_chains": [{"filters": filters}]},
            {"name": "tls", "address": address(tls), "filter_chains": [{"filters": filters, "transport_socket": {"name": "tls", "typed_config": context}}]},
        ],
        "clusters": [{"name": "app", "connect_timeout": "5s", "type": "STATIC", "load_assignment": {"cluster_name": "app",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(site.backend)}}]}]}}],
    }})
}

fn pierhead(site: &Site<'_>, clear: SocketAddr, tls: SocketAddr) -> Result<serde_json::Value> {
    use serde_json::json;
    let read = |name: &str| fs::read_to_string(site.directory.join(name));
    let mut items = vec![
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "pierhead"},
            "spec": {"controllerName": "pierhead.dev/gateway-controller"}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "gate", "namespace": "default"},
            "spec": {"gatewayClassName": "pierhead", "listeners": [
                {"name": "http", "port": clear.port(), "protocol": "HTTP"},
                {"name": "https", "port": tls.port(), "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}]}}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "tls", "namespace": "default"},
            "stringData": {"tls.crt": read("tls.crt")?, "tls.key": read("tls.key")?}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "app-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "app"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": site.backend.port()}],
            "endpoints": [{"addresses": [site.backend.ip().to_string()], "conditions": {"ready": true}}]}),
    ];
    for host in 0..HOSTS {
        let rules: Vec<_> = PREFIXES
            .iter()
            .map(|p| json!({"matches": [{"path": {"type": "PathPrefix", "value": p}}], "backendRefs": [{"name": "app", "port": 80}]}))
            .collect();
        items.push(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": format!("h{host}"), "namespace": "default"},
            "spec": {"parentRefs": [{"name": "gate"}], "hostnames": [format!("h{host}.example.com")], "rules": rules}}),
        );
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}
