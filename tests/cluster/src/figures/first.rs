//! From the API server's word that a new route is there to the first answer through a node, as the client outside sees it.
//!
//! One thread asks all the time on a connection that it keeps, from before the route is made until it has answered for a
//! while: nothing between `404` and `200` escapes it. Then the other way round, when the route is deleted.

use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pierhead_wire::client::{Client, H1};

use super::crowd::{self, Crowd, PATH};
use super::quantile;
use super::report::Report;

/// From one question to the next.
const CADENCE: Duration = Duration::from_micros(500);

/// So many answers after the change must be as it says.
const STEADY: usize = 40;

/// A change that is not seen for so long is not seen.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn measure(crowd: &Crowd<'_>, samples: usize, report: &mut Report) -> Result<()> {
    let (mut live, mut gone) = (Vec::new(), Vec::new());
    let mut asker = Asker::new(crowd)?;
    for sample in 0..samples {
        let name = format!("new-{sample}");
        let host = format!("{name}.example.com");
        let route = crowd::route(&name, &host, None);
        live.extend(asker.turns(&host, (404, 200), || crowd.lab.api.create(&route))?);
        rest(sample);
        gone.extend(asker.turns(&host, (200, 404), || {
            crowd.lab.api.delete(&crowd::id(&name))?;
            Ok(Instant::now())
        })?);
        rest(sample + 1);
    }
    let wrong = asker.wrong.len();
    report.wrong.append(&mut asker.wrong);
    report.sample(crowd.size, "live", &live);
    report.sample(crowd.size, "gone", &gone);
    let mut row = |name, share, target, values: &mut Vec<Duration>| {
        if let Some(value) = quantile(values, share) {
            report.add(crowd.size, name, "ms", target, value.as_secs_f64() * 1e3);
        }
    };
    row("acknowledged → first 200, p50", 0.5, Some(15.0), &mut live);
    row("acknowledged → first 200, p99", 0.99, Some(30.0), &mut live);
    row("acknowledged → first 200, slowest", 1.0, None, &mut live);
    row("deletion acknowledged → first 404, p50", 0.5, None, &mut gone);
    row("deletion acknowledged → first 404, p99", 0.99, None, &mut gone);
    report.add(crowd.size, "wrong answers in between", "", Some(0.0), wrong as f64);
    Ok(())
}

/// Not in step with anything that ticks.
fn rest(turn: usize) {
    thread::sleep(Duration::from_millis(60 + (turn as u64 * 37) % 240));
}

struct Asker {
    client: Client,
    front: std::net::SocketAddr,
    connection: H1<TcpStream>,
    wrong: Vec<String>,
}

impl Asker {
    fn new(crowd: &Crowd<'_>) -> Result<Self> {
        Ok(Self {
            client: crowd.lab.client.clone(),
            front: crowd.front,
            connection: crowd.lab.client.h1(crowd.front)?,
            wrong: Vec::new(),
        })
    }

    /// Makes a change that turns answers from one status into another; how long after its acknowledgement the first one was
    /// so. `None`: never, which is among what was wrong.
    fn turns(
        &mut self,
        host: &str,
        (from, to): (u16, u16),
        change: impl FnOnce() -> Result<Instant>,
    ) -> Result<Option<Duration>> {
        let (begun, begins) = mpsc::channel();
        let (acknowledged, first) = thread::scope(|scope| {
            let asking = scope.spawn(move || self.ask(host, from, to, &begun));
            begins.recv().context("nothing answers")?;
            let acknowledged = change()?;
            let first = asking
                .join()
                .map_err(|_panic| anyhow!("the asking thread panicked"))??;
            anyhow::Ok((acknowledged, first))
        })?;
        Ok(first.map(|first| first.saturating_duration_since(acknowledged)))
    }

    /// When the first answer of the new status had come.
    fn ask(&mut self, host: &str, from: u16, to: u16, begun: &mpsc::Sender<()>) -> Result<Option<Instant>> {
        let deadline = Instant::now() + PATIENCE;
        let mut first = None;
        let mut steady = 0;
        while steady < STEADY {
            let asked = Instant::now();
            let answer = self.connection.get(host, PATH);
            let answered = Instant::now();
            let wrong = match answer {
                Ok(answer) if answer.status == from && first.is_none() => {
                    // Nobody listens any more after the first time.
                    let _ = begun.send(());
                    None
                }
                Ok(answer) if answer.status == to => {
                    first.get_or_insert(answered);
                    steady += 1;
                    let check = (to == 200).then(|| crowd::is_from_first(&answer.body, answer.status));
                    check.and_then(Result::err).map(|error| format!("{error:#}"))
                }
                Ok(answer) => Some(format!("status {}", answer.status)),
                Err(error) => {
                    self.connection = self.client.h1(self.front)?;
                    Some(format!("{error:#}"))
                }
            };
            if let Some(wrong) = wrong {
                let when = if first.is_some() { "after" } else { "before" };
                self.wrong
                    .push(format!("{host}: {wrong} {when} the change from {from} to {to}"));
            }
            if answered > deadline {
                self.wrong.push(format!("{host}: not {to} within {PATIENCE:?}"));
                return Ok(None);
            }
            thread::sleep((asked + CADENCE).saturating_duration_since(Instant::now()));
        }
        Ok(first)
    }
}
