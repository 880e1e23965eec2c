//! An API server of our own: etcd and kube-apiserver on loopback, and kubectl to speak with it.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Ends with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct ApiServer {
    binaries: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    /// More flags of kube-apiserver, from its next start on.
    flags: Vec<String>,
    etcd_port: u16,
    api_server: Option<Process>,
    _etcd: Process,
    _alone: MutexGuard<'static, ()>,
}

/// One at a time: some tests look at the time.
static ALONE: Mutex<()> = Mutex::new(());

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    listener.local_addr().expect("bound").port()
}

/// A folder that the tier names.
fn folder(variable: &str, holds: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    let path = PathBuf::from(path.unwrap_or_else(|| panic!("{variable} must name the folder with {holds}")));
    assert!(path.is_dir(), "{variable} names {}, which is no folder", path.display());
    path
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let binaries = folder(
            "PIERHEAD_CLUSTER_BIN",
            "etcd, kube-apiserver and kubectl (`cargo xtask cluster`)",
        );
        let dir = tempfile::tempdir().expect("a folder");
        let (etcd_port, peer_port) = (free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = Command::new(binaries.join("etcd"))
            .args(["--data-dir".as_ref(), dir.path().join("etcd").as_os_str()])
            .args([
                "--listen-client-urls",
                &url(etcd_port),
                "--advertise-client-urls",
                &url(etcd_port),
            ])
            .args([
                "--listen-peer-urls",
                &url(peer_port),
                "--initial-advertise-peer-urls",
                &url(peer_port),
            ])
            .args(["--initial-cluster", &format!("default={}", url(peer_port))])
            .args(["--unsafe-no-fsync", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        let mut server = Self {
            binaries,
            dir,
            port: free_port(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            etcd_port,
            api_server: None,
            _etcd: Process(etcd),
            _alone: alone,
        };
        server.prepare();
        server.up();
        server.kubectl(&["create", "namespace", "pierhead-system"]);
        server
    }

    fn prepare(&self) {
        let key = rcgen::KeyPair::generate().expect("a key");
        fs::write(self.path("sa.key"), key.serialize_pem()).expect("written");
        fs::write(self.path("sa.pub"), key.public_key_pem()).expect("written");
        fs::write(self.path("tokens"), "secret,admin,1,\"system:masters\"\n").expect("written");
        let server = format!("https://127.0.0.1:{}", self.port);
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
             clusters: [{{name: c, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: secret}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
        );
        fs::write(self.kubeconfig(), kubeconfig).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// Whoever knew it knows it no longer; kubectl and who is started from now on do, once it is [up](Self::up) again.
    pub(crate) fn move_to(&mut self, port: Option<u16>) -> u16 {
        self.down();
        let before = std::mem::replace(&mut self.port, port.unwrap_or_else(free_port));
        self.prepare();
        before
    }

    pub(crate) fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts it, or starts it again.
    pub(crate) fn up(&mut self) {
        let argument = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        let log = fs::File::create(self.path("api-server.log")).expect("a log");
        let process = Command::new(self.binaries.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .args([
                format!("--secure-port={}", self.port),
                "--bind-address=127.0.0.1".into(),
            ])
            .args(["--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args(["--service-cluster-ip-range=10.97.0.0/16", "--authorization-mode=RBAC"])
            .args([
                argument("cert-dir", self.path("certs")),
                argument("token-auth-file", self.path("tokens")),
            ])
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(argument("service-account-signing-key-file", self.path("sa.key")))
            .arg(argument("service-account-key-file", self.path("sa.pub")))
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kube-apiserver starts");
        self.api_server = Some(Process(process));
        eventually(Duration::from_secs(60), "the API server is ready", || {
            self.run(&["get", "--raw", "/readyz"], "").is_ok()
        });
        eventually(Duration::from_secs(60), "the namespace default exists", || {
            self.run(&["get", "namespace", "default"], "").is_ok()
        });
    }

    pub(crate) fn down(&mut self) {
        self.api_server = None;
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(self.binaries.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().ok_or("no input")?;
        stdin.write_all(input.as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.run(arguments, "")
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    pub(crate) fn apply(&self, manifests: &str) {
        let mut said = String::new();
        let applied = || match self.run(&["apply", "--server-side", "-f", "-"], manifests) {
            Ok(_) => true,
            Err(error) => {
                said = error;
                false
            }
        };
        // A kind is served a moment after its CRD is there, and a namespace usable a moment after it is.
        if !within(Duration::from_secs(20), applied) {
            panic!("kubectl apply: {said}\n{manifests}");
        }
    }

    /// What kubectl says of manifests that the API server refuses.
    pub(crate) fn apply_refused(&self, manifests: &str) -> String {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.run(&arguments, manifests).expect_err("it is refused")
    }

    /// What is said to a bare GET, to its end, also if that is a fault.
    pub(crate) fn raw(&self, path: &str) -> String {
        self.run(&["get", "--raw", path], "").unwrap_or_else(|error| error)
    }

    pub(crate) fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let patch = patch.to_string();
        self.kubectl(&["patch", kind, "-n", namespace, name, "--type=merge", "-p", &patch]);
    }

    /// `None`: there is no such object.
    pub(crate) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let text = self.run(&["get", kind, "-n", namespace, name, "-o", "json"], "").ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kind, "-n", namespace, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn patch_status(&self, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let patch = patch.to_string();
        let arguments = [
            "patch",
            kind,
            "-n",
            namespace,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.kubectl(&arguments);
    }

    /// The CRDs of the Gateway API, all but those that are `without`.
    pub(crate) fn install_crds(&self, without: &[&str]) {
        let folder = folder("PIERHEAD_GATEWAY_API_CRDS", "the CRDs of the Gateway API");
        for file in fs::read_dir(folder).expect("readable").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let wanted = name.starts_with("gateway.networking.k8s.io_") && !name.contains("_vap_");
            if wanted && !without.iter().any(|kind| name.contains(kind)) {
                self.install_crd(&file.path());
            }
        }
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    }

    pub(crate) fn install_crd_of(&self, kind: &str) {
        let folder = folder("PIERHEAD_GATEWAY_API_CRDS", "the CRDs of the Gateway API");
        self.install_crd(&folder.join(format!("gateway.networking.k8s.io_{kind}.yaml")));
    }

    /// The CRDs of Pierhead.
    pub(crate) fn install_our_crds(&self) {
        self.install_crd(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/deploy/crds.yaml"));
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    }

    fn install_crd(&self, file: &Path) {
        self.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]);
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(limit, is_so), "not within {limit:?}: {what}");
}

fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}
