//! Route changes in a folder: one file per HTTPRoute, or per few where there are more than a folder may have files, replaced as
//! editors and tools replace files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use serde_json::json;
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

/// Pierhead on a folder of many routes.
pub(super) struct Edited {
    pub(super) peer: Peer,
    folder: PathBuf,
    /// Routes in a file.
    each: usize,
    _directory: TempDir,
}

impl Edited {
    /// Starts it with so many HTTPRoutes of two rules each.
    pub(super) async fn start(plan: &Plan, routes: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        Pki::make(directory.path())?;
        let (backend, grpc): (SocketAddr, SocketAddr) = (backend::serve().await?, grpc::serve().await?);
        let folder = directory.path().join("pierhead/manifests/routes");
        fs::create_dir_all(&folder)?;
        let each = routes.div_ceil(MAX_FILES);
        for number in (0..routes).step_by(each) {
            put(&folder, each, number, 0)?;
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
            folder,
            each,
            _directory: directory,
        })
    }

    /// Puts a new version of a route, and of those in the same file, in place of the old one.
    pub(super) fn edit(&self, number: usize, version: u64) -> Result<()> {
        put(&self.folder, self.each, number, version)
    }

    /// The same, from another thread.
    pub(super) fn editor(&self) -> impl Fn(usize, u64) -> Result<()> + Send + 'static {
        let (folder, each) = (self.folder.clone(), self.each);
        move |number, version| put(&folder, each, number, version)
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

/// Writes the file that holds route `number`, with `each` routes in a file, all of this version. The last file is full too.
fn put(folder: &Path, each: usize, number: usize, version: u64) -> Result<()> {
    let first = number / each * each;
    let mut text = Vec::new();
    for number in first..first + each {
        let mut route = http_route(&format!("r{number}"), &["/health", "/api/v1"], "app");
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
    let new = folder.join(format!(".r{first}.new"));
    fs::write(&new, text)?;
    // Several documents are YAML.
    let kind = if each == 1 { "json" } else { "yaml" };
    fs::rename(&new, folder.join(format!("r{first}.{kind}"))).context("put a route in place")
}
