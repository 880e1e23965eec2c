//! The binary from outside: exit status, the one line that names the fix, and the admin address.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use program::Program;
use tempfile::TempDir;

const GATE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: pierhead
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: web, port: PORT, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80, targetPort: 3000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{port: 3000}]
";

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn pierhead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pierhead"))
        .args(arguments)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Running {
    program: Program,
    admin: SocketAddr,
    folder: TempDir,
    state: TempDir,
    log: std::path::PathBuf,
}

impl Running {
    fn start(files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let (folder, state) = (folder(files), tempfile::tempdir().unwrap());
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = state.path().join("log");
        let child = standalone(folder.path(), state.path(), admin)
            .args(arguments)
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self {
            program: Program(child),
            admin,
            folder,
            state,
            log,
        }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.admin).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    #[track_caller]
    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: never; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn ready(&self) {
        self.wait("ready", |own| {
            own.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn stop(self) -> i32 {
        self.program.stop()
    }
}

fn standalone(folder: &Path, state: &Path, admin: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pierhead"));
    command
        .args([
            "standalone",
            "--ebpf",
            "off",
            "--workers",
            "1",
            "--admin",
            &admin.to_string(),
        ])
        .arg("--config")
        .arg(folder)
        .arg("--state-dir")
        .arg(state)
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::null());
    command
}

#[test]
fn check_says_what_is_wrong_by_exit_status_text_and_json() {
    let good = folder(&[("gate.yaml", &GATE.replace("PORT", "8080"))]);
    let path = good.path().to_str().unwrap();
    let output = pierhead(&["check", path]);
    assert_eq!(code(&output), 0, "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("Programmed"), "{}", text(&output.stdout));

    fs::write(
        good.path().join("bad.yaml"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {prots: []}\n",
    )
    .unwrap();
    let output = pierhead(&["check", path]);
    assert_eq!(code(&output), 1);
    let said = text(&output.stdout);
    assert!(
        said.contains(
            "bad.yaml:4: Service default/x: spec.prots: unknown field \"prots\"; fix: did you mean \"ports\"?"
        ),
        "{said}"
    );

    let output = pierhead(&["check", path, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), &json["problems"][0]["line"]), (1, &4.into()));
    assert!(
        json["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["type"] == "Programmed" && one["status"] == "True")
    );

    let output = pierhead(&["check", "/nonexistent/folder"]);
    assert_eq!(code(&output), 2);
    let said = text(&output.stderr);
    assert!(
        said.lines().count() == 1 && said.contains("does not exist; fix: create the folder"),
        "{said}"
    );
    assert_eq!(code(&pierhead(&["check"])), 2, "bad usage");
}

#[test]
fn a_certificate_without_its_key_and_one_with_another_key_are_named() {
    let secret = |name: &str, data: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\ndata: {{{data}}}\n")
    };
    let gate = GATE.replace(
        "{name: web, port: PORT, protocol: HTTP}",
        "{name: web, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: pair}]}}",
    );
    let dir = folder(&[("gate.yaml", &gate), ("pair.yaml", &secret("pair", "tls.crt: Zm9v"))]);
    let said = text(&pierhead(&["check", dir.path().to_str().unwrap()]).stdout);
    assert!(
        said.contains("pair.yaml:5: Secret default/pair: data[\"tls.key\"]") && said.contains("fix: add \"tls.key\""),
        "{said}"
    );

    fs::write(
        dir.path().join("pair.yaml"),
        secret("pair", "tls.crt: Zm9v, tls.key: YmFy"),
    )
    .unwrap();
    let output = pierhead(&["check", dir.path().to_str().unwrap()]);
    let said = text(&output.stdout);
    assert_eq!(code(&output), 1);
    assert!(said.contains("Secret default/pair"), "{said}");
    assert!(
        said.lines()
            .any(|line| line.contains("HTTPRoute default/web") && line.contains("True")),
        "the rest is not hurt: {said}"
    );
}

#[test]
fn standalone_is_ready_follows_changes_shows_itself_and_ends_on_a_signal() {
    let port = free_port().to_string();
    let running = Running::start(&[("gate.yaml", &GATE.replace("PORT", &port))], &[]);
    running.ready();
    assert_eq!(running.get("/healthz").unwrap().0, 200);
    let (status, metrics) = running.get("/metrics").unwrap();
    assert!(
        status == 200 && metrics.contains("\npierhead_config_objects 4\n"),
        "{metrics}"
    );
    assert!(running.get("/snapshot").unwrap().1.contains("tcp 127.0.0.1:"));

    let shown = pierhead(&["status", "--admin", &running.admin.to_string()]);
    let said = text(&shown.stdout);
    assert_eq!(code(&shown), 0, "{said}");
    for part in [
        "ready",
        "ebpf: off",
        "default/gw",
        "HTTPRoute default/web",
        "127.0.0.1:3000",
    ] {
        assert!(said.contains(part), "{part:?} in\n{said}");
    }

    fs::write(running.folder.path().join("bad.yaml"), "a: [").unwrap();
    running.wait("the bad file is told", |own| own.log().contains("bad.yaml:"));
    let served = |own: &Running| {
        own.get("/metrics")
            .is_some_and(|(_, text)| text.contains("\npierhead_config_objects 4\n"))
    };
    assert!(served(&running), "what is beside it stays");
    fs::write(
        running.folder.path().join("bad.yaml"),
        GATE.split("---").nth(2).unwrap().replace("web", "two"),
    )
    .unwrap();
    running.wait("the new object", |own| {
        own.get("/metrics")
            .is_some_and(|(_, text)| text.contains("\npierhead_config_objects 5\n"))
    });
    assert_eq!(running.stop(), 0);
}

/// The nice values of a process' threads by name, of the process that serves if this one looks after it.
fn threads(pid: u32) -> Vec<(String, i32)> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let serving = children
        .split_whitespace()
        .next()
        .map_or(pid, |child| child.parse().unwrap());
    let tasks = fs::read_dir(format!("/proc/{serving}/task")).unwrap();
    tasks
        .map(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            // `pid (name) state …`, proc_pid_stat(5): nice is the 19th field.
            let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
            (
                name.to_owned(),
                rest.split_whitespace().nth(16).unwrap().parse().unwrap(),
            )
        })
        .collect()
}

#[test]
fn what_is_not_urgent_makes_way_for_the_workers() {
    let port = free_port().to_string();
    let running = Running::start(&[("gate.yaml", &GATE.replace("PORT", &port))], &[]);
    running.ready();
    let own = rustix::process::getpriority_process(None).unwrap();
    let threads = threads(running.program.0.id());
    let nice = |prefix: &str| {
        let mut found = threads.iter().filter(|(name, _)| name.starts_with(prefix));
        found
            .next()
            .unwrap_or_else(|| panic!("no thread {prefix} in {threads:?}"))
            .1
    };
    assert_eq!(nice("worker"), own, "{threads:?}");
    assert_eq!(nice("files"), own.max(10), "{threads:?}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn secrets_are_not_shown() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: open-sesame}\n";
    let running = Running::start(&[("s.yaml", secret)], &[]);
    running.ready();
    for path in ["/status", "/snapshot", "/statuses", "/metrics"] {
        let body = running.get(path).unwrap().1;
        assert!(
            !body.contains("open-sesame") && !body.contains("b3Blbi1zZXNhbWU="),
            "{path}"
        );
    }
    assert!(!running.log().contains("open-sesame"));
}

#[test]
fn a_second_instance_and_an_occupied_admin_port_are_told() {
    let running = Running::start(&[], &[]);
    running.ready();
    let other = tempfile::tempdir().unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let second = standalone(running.folder.path(), running.state.path(), free)
        .output()
        .unwrap();
    let said = text(&second.stderr);
    assert!(
        code(&second) == 2 && said.contains("another pierhead runs") && said.contains("fix: stop it"),
        "{said}"
    );
    let third = standalone(running.folder.path(), other.path(), running.admin)
        .output()
        .unwrap();
    let said = text(&third.stderr);
    assert!(
        code(&third) == 2 && said.contains("is in use; fix:") && said.contains("--admin"),
        "{said}"
    );
    assert_eq!(running.get("/readyz").unwrap().0, 200, "the first one does not notice");
}

#[test]
fn a_missing_capability_is_named_with_the_fix() {
    let dir = folder(&[]);
    let state = tempfile::tempdir().unwrap();
    // As root a user without capabilities is made; otherwise this user has none.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set", "-all", "--inh-caps", "-all", "--"])
            .arg(env!("CARGO_BIN_EXE_pierhead"));
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_pierhead"))
    };
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let output = command
        .args(["standalone", "--ebpf", "steer", "--admin", &admin.to_string()])
        .arg("--config")
        .arg(dir.path())
        .arg("--state-dir")
        .arg(state.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(
        code(&output) == 2 && said.contains("--ebpf=steer cannot be had") && said.contains("CAP_"),
        "{said}"
    );
}

#[test]
fn version_and_help() {
    assert_eq!(
        text(&pierhead(&["version"]).stdout),
        concat!("pierhead ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let help = text(&pierhead(&["--help"]).stdout);
    assert!(help.contains("Examples:") && help.contains("pierhead check ./manifests"));
    let help = text(&pierhead(&["standalone", "--help"]).stdout);
    for flag in [
        "--config",
        "--ebpf",
        "--address-pool",
        "--on-miss",
        "--nic",
        "--state-dir",
        "--access-log",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
}
#[test]
fn a_port_in_use_costs_only_its_listener() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let free = free_port();
    let gate = GATE.replace(
        "PORT, protocol: HTTP}",
        &format!("{port}, protocol: HTTP}}, {{name: other, port: {free}, protocol: HTTP}}"),
    );
    let running = Running::start(&[("gate.yaml", &gate)], &[]);
    running.ready();
    running.wait("the line that names the fix", |own| {
        own.log().contains("is in use by another process; fix:")
    });
    running.wait("the other listener", |_| {
        TcpStream::connect(("127.0.0.1", free)).is_ok()
    });
}
