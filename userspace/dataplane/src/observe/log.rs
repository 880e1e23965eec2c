//! The access log: one JSON object per line. Workers format into a buffer of their own and hand it over when it is full or
//! a tenth of a second old; a writer thread does the writing. Nobody ever waits for it.

use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, Write},
    rc::Rc,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::Exchange;
use crate::{AccessLog, StartError, worker::Worker};

/// Bytes a worker gathers before it hands them over.
const CHUNK_BYTES: usize = 32 * 1024;
/// Chunks that may wait for the writer.
const CHUNKS_WAITING: usize = 64;
/// How long a line may wait in a worker.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a value that came from a client and are written at most.
const VALUE_BYTES: usize = 1024;

/// The way to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct LogSender(SyncSender<Vec<u8>>);

impl LogSender {
    /// Starts the writer; `None` when the log is off.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub(crate) fn start(target: &AccessLog) -> Result<Option<Self>, StartError> {
        let (path, out): (String, Box<dyn Write + Send>) = match target {
            AccessLog::Off => return Ok(None),
            AccessLog::Stdout => ("stdout".to_owned(), Box::new(io::stdout())),
            AccessLog::File(path) => {
                let shown = path.display().to_string();
                match OpenOptions::new().append(true).create(true).open(path) {
                    Ok(file) => (shown, Box::new(file)),
                    Err(source) => return Err(StartError::AccessLog { path: shown, source }),
                }
            }
        };
        let (sender, receiver) = sync_channel(CHUNKS_WAITING);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(out, &receiver))
            .map_err(|source| StartError::AccessLog { path, source })?;
        Ok(Some(Self(sender)))
    }
}

fn write_all(mut out: Box<dyn Write + Send>, chunks: &Receiver<Vec<u8>>) {
    let mut failing = false;
    while let Ok(chunk) = chunks.recv() {
        let written = out.write_all(&chunk).and_then(|()| out.flush());
        if let Err(error) = &written
            && !failing
        {
            tracing::warn!(%error, "the access log cannot be written; fix: make room, or a reader for it");
        }
        failing = written.is_err();
    }
}

/// The lines of one worker on their way out.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    sender: Option<LogSender>,
    buffer: RefCell<Chunk>,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
    written: u64,
    dropped: u64,
}

impl LogBuffer {
    pub(crate) fn new(sender: Option<LogSender>) -> Self {
        Self {
            sender,
            buffer: RefCell::default(),
        }
    }

    /// Adds a line; nothing when the log is off.
    pub(crate) fn write<'e>(&self, exchange: impl FnOnce() -> Exchange<'e>) {
        if self.sender.is_none() {
            return;
        }
        let mut chunk = self.buffer.borrow_mut();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        line(&mut chunk.bytes, now, &exchange());
        chunk.lines += 1;
        if chunk.bytes.len() >= CHUNK_BYTES {
            self.hand_over(&mut chunk);
        }
    }

    pub(crate) fn flush(&self) {
        let mut chunk = self.buffer.borrow_mut();
        if !chunk.bytes.is_empty() {
            self.hand_over(&mut chunk);
        }
    }

    fn hand_over(&self, chunk: &mut Chunk) {
        let bytes = std::mem::take(&mut chunk.bytes);
        let lines = std::mem::take(&mut chunk.lines);
        let sent = self
            .sender
            .as_ref()
            .is_some_and(|sender| sender.0.try_send(bytes).is_ok());
        if sent {
            chunk.written += lines;
        } else {
            chunk.dropped += lines;
        }
    }

    /// Hands lines over while the worker runs, and counts them.
    pub(crate) async fn flush_regularly(worker: Rc<Worker>) {
        if worker.log.sender.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            worker.log.flush();
            let mut chunk = worker.log.buffer.borrow_mut();
            let (written, dropped) = (std::mem::take(&mut chunk.written), std::mem::take(&mut chunk.dropped));
            worker.cells().log_lines.add(written);
            worker.cells().log_lines_dropped.add(dropped);
        }
    }
}

fn line(out: &mut Vec<u8>, now: Duration, exchange: &Exchange<'_>) {
    let (year, month, day) = civil(now.as_secs() / 86_400);
    let second = now.as_secs() % 86_400;
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "{{\"time\":\"{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z\",\"protocol\":\"{}\",\"client\":\"{}\",\"local\":\"{}\"",
        second / 3600,
        second / 60 % 60,
        second % 60,
        now.subsec_millis(),
        exchange.protocol,
        exchange.peer,
        exchange.local,
    );
    if let Some(listener) = exchange.listener {
        text(out, "listener", listener);
    }
    if let Some(sni) = exchange.sni {
        bytes(out, "sni", sni.as_bytes());
    }
    if let Some(request) = &exchange.request {
        bytes(out, "method", request.method);
        bytes(out, "host", request.host);
        bytes(out, "path", request.target);
        let _ = write!(out, ",\"status\":{}", request.status);
        if let Some(agent) = request.user_agent {
            bytes(out, "user_agent", agent);
        }
        if let Some(id) = request.request_id {
            bytes(out, "request_id", id);
        }
        if let Some(upstream) = request.upstream {
            let _ = write!(out, ",\"upstream_ms\":{}", Millis(upstream));
        }
    }
    if let Some(route) = exchange.route {
        text(out, "route", route);
    }
    if let Some(backend) = exchange.backend {
        text(out, "backend", backend);
    }
    if let Some(endpoint) = exchange.endpoint {
        let _ = write!(out, ",\"endpoint\":\"{endpoint}\"");
    }
    let _ = writeln!(
        out,
        ",\"reason\":\"{}\",\"duration_ms\":{},\"bytes_in\":{},\"bytes_out\":{},\"attempts\":{}}}",
        exchange.reason.as_str(),
        Millis(exchange.duration),
        exchange.bytes_in,
        exchange.bytes_out,
        exchange.attempts,
    );
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = self.0.as_micros();
        write!(f, "{}.{:03}", us / 1000, us % 1000)
    }
}

/// A value of ours. Names of objects are checked by Kubernetes, but they are quoted like everything else.
fn text(out: &mut Vec<u8>, name: &str, value: &dyn std::fmt::Display) {
    bytes(out, name, value.to_string().as_bytes());
}

/// A JSON string (RFC 8259 §7) of what a client sent: bytes that are no UTF-8 become U+FFFD.
fn bytes(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    let value = value.get(..VALUE_BYTES).unwrap_or(value);
    for chunk in value.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 | 0x7f => {
                    let _ = write!(out, "\\u{byte:04x}");
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// The date of a day since 1970-01-01 in the Gregorian calendar: days are counted from 1 March of year 0, where leap days
/// come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Reason, RequestFacts};

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_453, (2025, 12, 31)),
        ] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn a_line_is_json_whatever_the_client_sent() {
        let exchange = Exchange {
            protocol: "HTTP/1.1",
            peer: "192.0.2.1:1234".parse().unwrap(),
            local: "[2001:db8::1]:80".parse().unwrap(),
            listener: None,
            sni: None,
            route: None,
            backend: None,
            endpoint: None,
            request: Some(RequestFacts {
                method: b"GET",
                host: b"a\"b\\c\n\xff",
                target: &[b'x'; 5000],
                status: 404,
                user_agent: Some("é".as_bytes()),
                request_id: None,
                upstream: Some(Duration::from_micros(1234)),
            }),
            reason: Reason::NoRoute,
            duration: Duration::from_micros(5678),
            bytes_in: 1,
            bytes_out: 2,
            attempts: 0,
        };
        let mut out = Vec::new();
        line(&mut out, Duration::from_millis(1_700_000_000_123), &exchange);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["host"], "a\"b\\c\n\u{fffd}");
        assert_eq!(value["path"].as_str().unwrap().len(), VALUE_BYTES);
        assert_eq!(value["user_agent"], "é");
        assert_eq!(value["status"], 404);
        assert_eq!(value["upstream_ms"], 1.234);
        assert_eq!(value["duration_ms"], 5.678);
        assert!(out.ends_with(b"}\n"));
    }
}
