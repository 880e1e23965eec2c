//! Route changes in a folder: one file per HTTPRoute, or per few where there are more than a folder may have files, replaced as
//! editors and tools replace files.

use std::{fs, net::SocketAddr, path::PathBuf, rc::Rc};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    peers::{Peer, Shape, Site, http_route},
    plan::Plan,
    traffic::{backend, exchange::Request, grpc, pki::Pki},
};

/// The header by which a change is seen.
pub(super) const MARK: &str = "x-version";

/// Files that `pierhead standalone` reads of a folder at most, less some for what else is there.
const MAX_FILES: usize = 19_000;

/// Services in a file.
const SERVICES_A_FILE: usize = 1_000;

/// Where the routes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Services {
    /// All to one.
    Shared,
    /// Each to one of its own, with an EndpointSlice.
    Own,
}

/// Pierhead on a folder of many routes.
pub(super) struct Edited {
    pub(super) peer: Peer,
    files: Files,
    _directory: TempDir,
}

/// The files of the routes.
#[derive(Clone)]
struct Files {
    folder: PathBuf,
    /// Routes in a file.
    each: usize,
    services: Services,
}

impl Edited {
    /// Starts it with so many HTTPRoutes of two rules each.
    pub(super) async fn start(plan: &Plan, routes: usize, services: Services) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Pki::make(directory.path())?;
        let (backend, grpc): (SocketAddr, SocketAddr) = (backend::serve().await?, grpc::serve().await?);
        let folder = directory.path().join("pierhead/manifests/routes");
        fs::create_dir_all(&folder)?;
        let files = Files {
            folder,
            each: routes.div_ceil(MAX_FILES),
            services,
        };
        for number in (0..routes).step_by(files.each) {
            files.put(number, 0)?;
        }
        if services == Services::Own {
            // The last file of routes is full too.
            let all = 0..routes.next_multiple_of(files.each);
            for first in all.clone().step_by(SERVICES_A_FILE) {
                let some = first..all.end.min(first + SERVICES_A_FILE);
                let items: Vec<_> = some.flat_map(|number| service(number, backend)).collect();
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                fs::write(files.folder.join(format!("services-{first}.json")), list.to_string())?;
            }
        }
        let mut site = Site::new(directory.path(), backend, grpc, &plan.envoy);
        site.shape = Shape {
            hosts: 0,
            prefixes: &[],
            grpc_hosts: 0,
        };
        let peer = site.start(&["pierhead"])?.pop().context("a candidate")?;
        Ok(Self {
            peer,
            files,
            _directory: directory,
        })
    }

    /// Puts a new version of a route, and of those in the same file, in place of the old one.
    pub(super) fn edit(&self, number: usize, version: u64) -> Result<()> {
        self.files.put(number, version)
    }

    /// The same, from another thread.
    pub(super) fn editor(&self) -> impl Fn(usize, u64) -> Result<()> + Send + 'static {
        let files = self.files.clone();
        move |number, version| files.put(number, version)
    }
}

/// A request for a route.
pub(super) fn request(number: usize) -> Request {
    Request {
        head: format!("GET /health/x HTTP/1.1\r\nHost: r{number}.example.com\r\n\r\n").into_bytes(),
        body_bytes: 0,
        answer_bytes: backend::SMALL,
    }
}

/// One for each route.
pub(super) fn requests(routes: usize) -> Rc<[Request]> {
    (0..routes).map(request).collect()
}

/// The Service of a route, and where it leads.
fn service(number: usize, backend: SocketAddr) -> [Value; 2] {
    let name = format!("r{number}");
    let metadata = json!({"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}});
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend.port()}],
            "endpoints": [{"addresses": [backend.ip()], "conditions": {"ready": true}}]}),
    ]
}

impl Files {
    /// Writes the file that holds route `number`, all of this version. The last file is full too.
    fn put(&self, number: usize, version: u64) -> Result<()> {
        let first = number / self.each * self.each;
        let mut text = Vec::new();
        for number in first..first + self.each {
            let name = format!("r{number}");
            let service = match self.services {
                Services::Shared => "app",
                Services::Own => &name,
            };
            let mut route = http_route(&name, &["/health", "/api/v1"], service);
            let mark = json!([{"type": "ResponseHeaderModifier",
                "responseHeaderModifier": {"set": [{"name": MARK, "value": version.to_string()}]}}]);
            for rule in route["spec"]["rules"].as_array_mut().context("rules")? {
                rule["filters"] = mark.clone();
            }
            if number > first {
                text.extend_from_slice(b"\n---\n");
            }
            serde_json::to_writer(&mut text, &route)?;
        }
        // A name that is no manifest's until it is whole.
        let new = self.folder.join(format!(".r{first}.new"));
        fs::write(&new, text)?;
        // Several documents are YAML.
        let kind = if self.each == 1 { "json" } else { "yaml" };
        fs::rename(&new, self.folder.join(format!("r{first}.{kind}"))).context("put a route in place")
    }
}
