//! A folder of Kubernetes YAML, changed the ways people and programs change files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The folder, and one beside it for state; gone when dropped.
#[derive(Debug)]
pub struct Config {
    folder: TempDir,
    state: TempDir,
}

impl Config {
    /// An empty folder.
    pub fn empty() -> Result<Self> {
        Ok(Self {
            folder: TempDir::with_prefix("pierhead-config-")?,
            state: TempDir::with_prefix("pierhead-state-")?,
        })
    }

    /// A folder with these files.
    pub fn of(files: &[(&str, &str)]) -> Result<Self> {
        let config = Self::empty()?;
        for (name, text) in files {
            config.write(name, text)?;
        }
        Ok(config)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder for what is remembered across restarts.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Writes in place, as an editor that truncates does.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.file(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes beside and renames over, as a careful editor does.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        let beside = self.file(&format!(".{name}.new"));
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, self.file(name))?)
    }

    /// Renames a file.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(fs::rename(self.file(from), self.file(to))?)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.file(name))?)
    }

    /// Points `name` at `target` in one step, as a mounted ConfigMap does.
    pub fn point(&self, name: &str, target: &Path) -> Result<()> {
        let beside = self.file(&format!(".{name}.new"));
        std::os::unix::fs::symlink(target, &beside)?;
        Ok(fs::rename(&beside, self.file(name))?)
    }

    /// A file's path.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A Service of one port with its endpoints, all ready. `protocol` is `TCP` or `UDP`; the port is also the target port.
pub fn service(name: &str, protocol: &str, port: u16, addresses: &[IpAddr]) -> String {
    service_speaking(name, protocol, None, port, addresses)
}

/// A Service as above whose port names its `appProtocol`.
pub fn service_speaking(
    name: &str,
    protocol: &str,
    app_protocol: Option<&str>,
    port: u16,
    addresses: &[IpAddr],
) -> String {
    let speaks = app_protocol
        .map(|name| format!(", appProtocol: {name}"))
        .unwrap_or_default();
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{ports: [{{name: main, protocol: {protocol}, port: {port}, targetPort: {port}{speaks}}}]}}\n"
    );
    for (kind, addresses) in by_family(addresses) {
        if !addresses.is_empty() {
            text += &slice(name, kind, protocol, port, &addresses);
        }
    }
    text
}

fn slice(name: &str, kind: &str, protocol: &str, port: u16, addresses: &[&IpAddr]) -> String {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|address| {
            format!("{{addresses: ['{address}'], conditions: {{ready: true, serving: true, terminating: false}}}}")
        })
        .collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-{suffix}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: {kind}\nports: [{{name: main, protocol: {protocol}, port: {port}}}]\nendpoints: [{list}]\n",
        suffix = kind.to_lowercase(),
        list = endpoints.join(", ")
    )
}

fn by_family(addresses: &[IpAddr]) -> [(&'static str, Vec<&IpAddr>); 2] {
    let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
    [("IPv4", v4), ("IPv6", v6)]
}
