//! Instructions per request, counted by valgrind: the same on a busy machine as on a quiet one. Held against a committed
//! baseline.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ClientConfig;

use super::{grpc as grpc_rig, h2 as h2_rig, http};
use crate::{
    peers::{Shape, Site},
    plan::Plan,
    rigs::stage,
    traffic::{
        Until, backend, bodies,
        closed::{self, Work},
        exchange::Request,
        grpc, h2,
        pki::Pki,
    },
};

/// How much more than the baseline is a regression. Two runs differ by less than one in a hundred; where bodies are large by
/// four, for it is the kernel that decides in how many pieces they come.
const MARGIN: f64 = 0.03;
const LARGE_MARGIN: f64 = 0.10;
/// What a small proxied HTTP/1.1 request may take with everything on.
const SMALL_REQUEST_LIMIT: f64 = 20_000.0;
/// Few, so that each has work to do whenever it is looked at.
const CONNECTIONS: usize = 16;
/// Who can be run under valgrind.
pub(super) const KNOWS: [&str; 3] = ["pierhead", "nginx", "haproxy"];
const SMALL_REQUEST: &str = "http1 GET 200 B, clear";

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::on_core(async {
        let mut ours = BTreeMap::new();
        for &name in &plan.candidates {
            let counts = count(plan, name).await.context(name)?;
            for (what, count) in &counts {
                println!("{name:>10}  {what:<28} {count:>8.0} instructions");
            }
            if name == "pierhead" {
                ours = counts;
            }
        }
        if ours.is_empty() || !plan.only.is_empty() {
            return Ok(());
        }
        // Of the program that is shipped; one without optimisation is only compared with itself.
        if !cfg!(debug_assertions)
            && let Some(small) = ours.get(SMALL_REQUEST)
        {
            ensure!(
                *small <= SMALL_REQUEST_LIMIT,
                "a small request takes {small:.0} instructions; the limit is {SMALL_REQUEST_LIMIT}"
            );
        }
        compare(plan, &ours)
    })
}

/// Against the committed baseline, or into it.
fn compare(plan: &Plan, ours: &BTreeMap<String, f64>) -> Result<()> {
    let Some(path) = &plan.baseline else {
        return Ok(());
    };
    if plan.update {
        let whole: BTreeMap<_, _> = ours.iter().map(|(what, count)| (what, count.round() as u64)).collect();
        fs::write(path, serde_json::to_string_pretty(&whole)? + "\n")?;
        println!("written to {}", path.display());
        return Ok(());
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let baseline: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    let mut worse = Vec::new();
    for (what, count) in ours {
        let before = baseline.get(what).with_context(|| format!("no baseline for {what}"))?;
        let margin = if what.contains("100 kB") { LARGE_MARGIN } else { MARGIN };
        if *count > before * (1.0 + margin) {
            worse.push(format!(
                "{what}: {count:.0}, was {before:.0} (margin {:.0} %)",
                margin * 100.0
            ));
        } else if *count < before * (1.0 - margin) {
            println!(
                "better than the baseline, which may be lowered with --update: {what}: {count:.0}, was {before:.0}"
            );
        }
    }
    ensure!(
        worse.is_empty(),
        "more than the margin above the baseline:\n  {}",
        worse.join("\n  ")
    );
    Ok(())
}

async fn count(plan: &Plan, name: &'static str) -> Result<BTreeMap<String, f64>> {
    let directory = tempfile::tempdir()?;
    let pki = Pki::make(directory.path())?;
    let out = directory.path().join("callgrind");
    let mut site = Site::new(
        directory.path(),
        backend::serve().await?,
        grpc::serve().await?,
        &plan.envoy,
    );
    // Enough to choose from; starting many thousand under valgrind takes minutes.
    site.shape = Shape {
        hosts: 25,
        grpc_hosts: 25,
        ..Shape::default()
    };
    site.under = vec![
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--trace-children=yes".to_owned(),
        // Else only the first of several dumps has all names.
        "--compress-strings=no".to_owned(),
        format!("--callgrind-out-file={}.%p", out.display()),
    ];
    let peer = site.start(&[name])?.pop().context("a candidate")?;
    let counter = Counter {
        pid: worker(peer.pid()),
        out,
    };
    let tls = pki.client(&[b"http/1.1"], true)?;
    let h2 = pki.client(&[b"h2"], true)?;
    let mut counts = BTreeMap::new();
    for kind in http::KINDS.iter().take(3) {
        for (how, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
            let title = format!("http1 {}, {how}", kind.short);
            if plan.wants(&title) {
                let address = if config.is_some() { peer.tls } else { peer.clear };
                let requests = http::requests(kind, site.shape.hosts);
                counts.insert(title, counter.http1(address, &requests, config).await?);
            }
        }
    }
    let message = grpc::framed(bodies::piece(0, 100));
    let unary = h2::Call::Grpc {
        message,
        answers: 1,
        payload: bodies::piece(0, 100),
    };
    let get = h2::Call::Get {
        answer_bytes: backend::SMALL,
    };
    for (what, call) in [("h2 GET 200 B", get), ("gRPC unary 100 B", unary)] {
        for (how, config) in [("clear", None), ("TLS 1.3", Some(&h2))] {
            let title = format!("{what}, {how}");
            if plan.wants(&title) {
                let https = config.is_some();
                let heads = match &call {
                    h2::Call::Get { answer_bytes } => h2_rig::heads(*answer_bytes, https, site.shape.hosts)?,
                    h2::Call::Grpc { .. } => grpc_rig::heads("Echo", https, site.shape.grpc_hosts)?,
                };
                let work = h2::Work {
                    address: if https { peer.tls } else { peer.h2c },
                    connections: h2_rig::CONNECTIONS,
                    streams: h2_rig::STREAMS,
                    heads,
                    call: call.clone(),
                    tls: config.cloned(),
                };
                counts.insert(title, counter.http2(&work).await?);
            }
        }
    }
    if !counts.is_empty() {
        keep(plan, name, &counter)?;
    }
    Ok(counts)
}

/// The last profile, for reading.
fn keep(plan: &Plan, name: &str, counter: &Counter) -> Result<()> {
    let Some(folder) = &plan.out else { return Ok(()) };
    fs::create_dir_all(folder)?;
    fs::copy(counter.last()?, folder.join(format!("callgrind.{name}.out")))?;
    Ok(())
}

/// nginx works in a child.
fn worker(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .find_map(|pid| pid.parse().ok())
        .unwrap_or(pid)
}

struct Counter {
    pid: u32,
    out: PathBuf,
}

/// Answers of the two runs whose difference is counted: what connections take to be made falls out of it.
const FEW: u64 = 500;
const MANY: u64 = 2_500;

impl Counter {
    async fn http1(
        &self,
        address: std::net::SocketAddr,
        requests: &Rc<[Request]>,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<f64> {
        let work = Work {
            address,
            connections: CONNECTIONS,
            requests: Rc::clone(requests),
            tls: tls.cloned(),
        };
        self.difference(async |answers| Ok(closed::run(&work, Until::Answered(answers)).await?.count))
            .await
    }

    async fn http2(&self, work: &h2::Work) -> Result<f64> {
        self.difference(async |answers| Ok(h2::run(work, Until::Answered(answers)).await?.count))
            .await
    }

    /// Instructions per answer.
    async fn difference(&self, run: impl AsyncFn(u64) -> Result<u64>) -> Result<f64> {
        // Caches, and the size of the heap.
        run(FEW).await?;
        let mut totals = Vec::new();
        for answers in [FEW, MANY] {
            control("-z", self.pid)?;
            let count = run(answers).await?;
            totals.push((count as f64, self.total()?));
        }
        match totals[..] {
            [(few, less), (many, more)] => Ok((more - less) / (many - few)),
            _ => bail!("two runs"),
        }
    }

    /// Instructions since the counter was set to zero.
    fn total(&self) -> Result<f64> {
        control("-d", self.pid)?;
        let path = self.last()?;
        let text = fs::read_to_string(&path)?;
        text.lines()
            .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))
            .and_then(|number| number.trim().parse::<f64>().ok())
            .with_context(|| format!("no total in {}", path.display()))
    }

    /// The newest dump.
    fn last(&self) -> Result<PathBuf> {
        let number = |path: &Path| -> Option<u32> { path.extension()?.to_str()?.parse().ok() };
        let prefix = format!("{}.{}.", self.out.file_name().unwrap_or_default().display(), self.pid);
        let folder = self.out.parent().context("a folder")?;
        let mut found: Vec<PathBuf> = fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .collect();
        found.sort_by_key(|path| number(path));
        found.pop().context("callgrind wrote nothing")
    }
}

fn control(flag: &str, pid: u32) -> Result<()> {
    let output = Command::new("callgrind_control")
        .args([flag, &pid.to_string()])
        .output()
        .context("start callgrind_control: `cargo xtask bench` installs valgrind")?;
    if !output.status.success() {
        bail!("callgrind_control {flag}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
