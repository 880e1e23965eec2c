//! Small and large answers by clients that are not ours: wrk for HTTP/1.1, h2load for HTTP/2. They show that the rates and the CPU
//! of the other rigs are not a matter of our client.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::task;

use crate::{
    cpu,
    peers::{HOSTS, PREFIXES},
    plan::Plan,
    report::{Book, Sample, Scenario},
    rigs::{
        h2,
        http::{self, KINDS, Kind},
        stage::{self, Stage},
    },
    traffic::backend,
};

/// What wrk calls: requests in turn, and in the end one line for [`wrk`] to read.
const SCRIPT: &str = r#"
local at = 0
request = function()
  at = at % #heads + 1
  return heads[at]
end
done = function(summary, latency)
  local e = summary.errors
  local wrong = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes, wrong,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"#;

/// A client and its work.
struct Load {
    title: String,
    tls: bool,
    answer_bytes: usize,
    client: Client,
}

enum Client {
    Wrk { script: PathBuf },
    H2load { uris: PathBuf },
}

/// What a client says that it got.
#[derive(Debug, PartialEq)]
struct Got {
    answers: u64,
    took: Duration,
    /// Of all answers, with or without their heads.
    bytes: u64,
    /// Answers that were wrong or did not come.
    wrong: u64,
    /// p50, p99, p99.9 in microseconds, where the client knows them.
    latencies: Option<[f64; 3]>,
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let directory = tempfile::tempdir()?;
        let mut book = Book::new("throughput", "By wrk and h2load");
        for load in loads(directory.path())? {
            if plan.wants(&load.title) {
                let scenario = scenario(plan, &stage, &load).await;
                book.add(scenario.with_context(|| load.title.clone())?);
            }
        }
        backend::verdict()?;
        book.write(plan)
    })
}

/// All that is sent; what clients read is written into `directory`.
fn loads(directory: &Path) -> Result<Vec<Load>> {
    let mut loads = Vec::new();
    for kind in KINDS
        .iter()
        .filter(|kind| ["GET 200 B", "GET 100 kB"].contains(&kind.short))
    {
        let (short, size) = (kind.short, kind.answer_bytes);
        let script = directory.join(format!("{short}.lua"));
        fs::write(&script, lua(kind)?)?;
        for (how, tls) in [("clear", false), ("TLS 1.3", true)] {
            loads.push(Load {
                title: format!("HTTP/1.1, {short}, {how}, by wrk"),
                tls,
                answer_bytes: size,
                client: Client::Wrk { script: script.clone() },
            });
            let uris = directory.join(format!("{short} {how}"));
            fs::write(&uris, list(size, tls))?;
            loads.push(Load {
                title: format!("HTTP/2, {short}, {how}, by h2load"),
                tls,
                answer_bytes: size,
                client: Client::H2load { uris },
            });
        }
    }
    Ok(loads)
}

fn lua(kind: &Kind) -> Result<String> {
    let mut text = String::from("local heads = {\n");
    for request in &*http::requests(kind, HOSTS) {
        // Lua has the same escapes for what a head holds.
        let _ = writeln!(text, "{:?},", std::str::from_utf8(&request.head)?);
    }
    text.push('}');
    text.push_str(SCRIPT);
    Ok(text)
}

/// h2load takes scheme and host of the first for all.
fn list(size: usize, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let uris = (0..1_000).map(|n| {
        let prefix = PREFIXES[n % PREFIXES.len()];
        format!("{scheme}://h7.example.com{prefix}/item-{n}?size={size}\n")
    });
    uris.collect()
}

async fn scenario(plan: &Plan, stage: &Stage, load: &Load) -> Result<Scenario> {
    let mut scenario = Scenario::new(&load.title, "request");
    for round in 0..=plan.rounds {
        for peer in &stage.peers {
            let address = match load.client {
                _ if load.tls => peer.tls,
                Client::Wrk { .. } => peer.clear,
                Client::H2load { .. } => peer.h2c,
            };
            let command = load.command(address, plan.time_of(round));
            let before = peer.run_time()?;
            let text = said(command).await?;
            let spent = peer.run_time()?.saturating_sub(before);
            let got = match load.client {
                Client::Wrk { .. } => wrk(&text),
                Client::H2load { .. } => h2load(&text, load.tls),
            };
            let got = got.with_context(|| format!("{}: {text}", peer.name))?;
            got.check(load.answer_bytes).with_context(|| peer.name)?;
            if round > 0 {
                scenario.add(peer.name, got.sample(spent, cpu::resident(peer.pid())?));
            }
        }
    }
    Ok(scenario)
}

/// Runs a client on this thread's core, where the backend goes on.
async fn said(mut command: Command) -> Result<String> {
    let output = task::spawn_blocking(move || command.output()).await?;
    let output = output.context("the client does not start; `cargo xtask bench` installs it")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the client ended with {}: {error}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl Load {
    fn command(&self, address: SocketAddr, time: Duration) -> Command {
        // Neither knows parts of a second.
        let seconds = time.as_secs_f64().ceil().max(1.0);
        match &self.client {
            Client::Wrk { script } => {
                let mut command = Command::new("wrk");
                let scheme = if self.tls { "https" } else { "http" };
                command
                    .args(["--threads=1", "--timeout=10s"])
                    .arg("--script")
                    .arg(script);
                command
                    .arg(format!("--connections={}", http::CONNECTIONS))
                    .arg(format!("--duration={seconds}s"));
                command.arg(format!("{scheme}://{address}/"));
                command
            }
            Client::H2load { uris } => {
                let mut command = Command::new("h2load");
                command.args(["--threads=1", &format!("--duration={seconds}")]);
                command.arg(format!("--clients={}", h2::CONNECTIONS));
                command.arg(format!("--max-concurrent-streams={}", h2::STREAMS));
                command.arg(format!("--connect-to={address}"));
                for field in [
                    "accept-encoding: gzip",
                    "accept-language: en",
                    "cookie: session=0123456789abcdef",
                ] {
                    command.args(["--header", field]);
                }
                command.arg("--input-file").arg(uris);
                command
            }
        }
    }
}

impl Got {
    fn check(&self, answer_bytes: usize) -> Result<()> {
        ensure!(self.answers > 0, "it answered nothing");
        ensure!(
            self.wrong == 0,
            "{} of {} answers were wrong or missing",
            self.wrong,
            self.answers
        );
        let least = self.answers * answer_bytes as u64;
        ensure!(self.bytes >= least, "{} bytes came, not {least}", self.bytes);
        Ok(())
    }

    fn sample(&self, spent: Duration, resident: u64) -> Sample {
        let mut values = vec![
            ("CPU-µs", spent.as_secs_f64() * 1e6 / self.answers as f64),
            ("per s", self.answers as f64 / self.took.as_secs_f64()),
        ];
        if let Some(latencies) = self.latencies {
            values.extend(["p50 µs", "p99 µs", "p99.9 µs"].into_iter().zip(latencies));
        }
        values.push(("MB", resident as f64 / 1e6));
        Sample(values)
    }
}

/// Reads the line of [`SCRIPT`].
fn wrk(text: &str) -> Result<Got> {
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<u64> = line
        .context("wrk gave no result")?
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [answers, microseconds, bytes, wrong, latencies @ ..] = &numbers[..] else {
        anyhow::bail!("wrk gave {} numbers", numbers.len());
    };
    let latencies: [u64; 3] = latencies.try_into()?;
    Ok(Got {
        answers: *answers,
        took: Duration::from_micros(*microseconds),
        bytes: *bytes,
        wrong: *wrong,
        latencies: Some(latencies.map(|of| of as f64)),
    })
}

/// Reads h2load's report.
fn h2load(text: &str, tls: bool) -> Result<Got> {
    let line = |start: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(start))
            .with_context(|| format!("h2load said no `{start}`"))
    };
    // `<number> <what>, <number> <what>, ...`
    let count = |line: &str, what: &str| {
        let part = line.split(',').find_map(|part| part.trim().strip_suffix(what));
        let number = part.with_context(|| format!("h2load counted no{what}"))?;
        anyhow::Ok(number.parse::<u64>()?)
    };
    if tls {
        let protocol = line("TLS Protocol: ")?;
        ensure!(protocol == "TLSv1.3", "h2load spoke {protocol}");
    }
    let (requests, statuses) = (line("requests: ")?, line("status codes: ")?);
    // A status counts with its head, an answer with its end: those of the last moment have no end.
    let (answers, done) = (count(requests, " succeeded")?, count(requests, " done")?);
    let mut wrong = done.saturating_sub(answers);
    for (counts, what) in [
        (requests, " errored"),
        (requests, " timeout"),
        (statuses, " 3xx"),
        (statuses, " 4xx"),
        (statuses, " 5xx"),
    ] {
        wrong += count(counts, what)?;
    }
    // `traffic: 1.93MB (2021234) total, 40.1KB (41083) headers (space savings 80%), 1.76MB (1843200) data`
    let data = line("traffic: ")?
        .rsplit_once('(')
        .and_then(|(_, data)| data.strip_suffix(") data"));
    // `finished in 2.00s, 12345.60 req/s, 3.21MB/s`
    let rate = line("finished in ")?
        .split(", ")
        .find_map(|part| part.strip_suffix(" req/s"));
    let rate: f64 = rate.context("h2load said no rate")?.parse()?;
    ensure!(rate > 0.0, "h2load got no answer");
    Ok(Got {
        answers,
        took: Duration::from_secs_f64(answers as f64 / rate),
        bytes: data.context("h2load counted no data")?.parse()?,
        wrong,
        latencies: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_read() {
        let got = wrk("Running 1s test @ x\nRESULT 100 1000000 40000 2 50 99 999\n").unwrap();
        let took = Duration::from_secs(1);
        let latencies = Some([50.0, 99.0, 999.0]);
        assert_eq!(
            got,
            Got {
                answers: 100,
                took,
                bytes: 40_000,
                wrong: 2,
                latencies
            }
        );
        assert!(got.check(200).is_err(), "two were wrong");
        assert!(wrk("unable to connect").is_err() && wrk("RESULT 1 2 3").is_err());

        let report = "TLS Protocol: TLSv1.3\n\nfinished in 2.00s, 50.00 req/s, 3.21MB/s\n\
            requests: 100 total, 110 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout\n\
            status codes: 104 2xx, 0 3xx, 0 4xx, 0 5xx\n\
            traffic: 1.93MB (2021234) total, 40.1KB (41083) headers (space savings 80.00%), 19.5KB (20000) data\n";
        let got = h2load(report, true).unwrap();
        let took = Duration::from_secs(2);
        assert_eq!(
            got,
            Got {
                answers: 100,
                took,
                bytes: 20_000,
                wrong: 0,
                latencies: None
            }
        );
        assert!(got.check(200).is_ok() && got.check(201).is_err());
        assert!(h2load(&report.replace("v1.3", "v1.2"), true).is_err());
        let wrong = h2load(&report.replace("0 4xx", "2 4xx"), true).unwrap();
        assert_eq!(wrong.wrong, 2);
    }
}
