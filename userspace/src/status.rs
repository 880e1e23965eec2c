//! `pierhead status`: the picture of a running process, readable.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::check::table;
use crate::cli::{self, Admin, Output};
use crate::picture::Picture;

/// How long the running process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &cli::Status) -> Result<ExitCode> {
    if options.quiet {
        // Of a probe only the exit status counts; the reason is on standard error, where the kubelet shows it.
        let path = if options.alive { "/healthz" } else { "/readyz" };
        let answer = ask(&options.admin, path)?;
        if answer.status != 200 {
            bail!("{}", answer.body.trim());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let json = fetch(&options.admin)?;
    let picture: Picture =
        serde_json::from_str(&json).context("the answer is no status of this version of pierhead")?;
    match options.output {
        Output::Json => crate::say(&json)?,
        Output::Text => crate::say(&text(&picture))?,
    }
    Ok(ExitCode::from(u8::from(!picture.ready)))
}

fn fetch(admin: &Admin) -> Result<String> {
    let answer = ask(admin, "/status")?;
    if answer.status != 200 {
        bail!("{admin} is no pierhead: it answers with status {}", answer.status);
    }
    Ok(answer.body)
}

struct Answer {
    status: u16,
    body: String,
}

fn ask(admin: &Admin, path: &str) -> Result<Answer> {
    let fault = || format!("no pierhead answers on {admin}; fix: start it, or name its address with --admin");
    match admin {
        Admin::Address(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE).with_context(fault)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, admin, path)
        }
        Admin::Socket(socket) => {
            let stream = UnixStream::connect(socket).with_context(fault)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            exchange(stream, admin, path)
        }
    }
}

fn exchange(mut stream: impl Read + Write, admin: &Admin, path: &str) -> Result<Answer> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream
        .take(256 << 20)
        .read_to_string(&mut answer)
        .with_context(|| format!("{admin} does not answer"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{admin} does not speak HTTP"))?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    Ok(Answer {
        status: status.with_context(|| format!("{admin} does not speak HTTP"))?,
        body: body.to_owned(),
    })
}

fn text(picture: &Picture) -> String {
    let mut text = String::new();
    head(&mut text, picture);
    let configuration = &picture.configuration;
    for problem in &configuration.problems {
        let _ = writeln!(text, "  ! {problem}");
    }

    let rows = picture.gateways.iter().map(|one| {
        let state = if one.programmed { "yes" } else { "NO" };
        [
            one.name.clone(),
            one.addresses.join(", "),
            state.into(),
            one.why.clone(),
        ]
    });
    section(
        &mut text,
        "Gateways",
        ["NAME", "ADDRESSES", "PROGRAMMED", "WHY NOT"],
        rows.collect(),
    );

    let rows = picture.nodes.iter().map(|one| {
        let state = if one.connected { "connected" } else { "GONE" };
        [
            one.name.clone(),
            format!("{state} since {}", one.since),
            one.addresses.join(", "),
            one.version.to_string(),
            shortened(&one.problems, 2),
        ]
    });
    section(
        &mut text,
        "Nodes",
        ["NAME", "STATE", "ADDRESSES", "VERSION", "PROBLEMS"],
        rows.collect(),
    );

    let rows = picture.binds.iter().flat_map(|bind| {
        bind.listeners.iter().enumerate().map(|(index, one)| {
            let first = index == 0;
            [
                if first { bind.bind.clone() } else { String::new() },
                if first { bind.path.clone() } else { String::new() },
                one.id.clone(),
                one.kind.clone(),
                shortened(&one.hosts, 3),
                one.routes.to_string(),
                one.connections.to_string(),
                one.requests.to_string(),
                if first { bind.why.clone() } else { String::new() },
            ]
        })
    });
    let head = [
        "ADDRESS", "PATH", "LISTENER", "KIND", "HOSTS", "ROUTES", "CONNS", "REQUESTS", "WHY",
    ];
    section(&mut text, "Listeners", head, rows.collect());

    let rows = picture
        .routes
        .iter()
        .map(|one| [one.id.clone(), one.rules.to_string(), shortened(&one.listeners, 3)]);
    section(&mut text, "Routes", ["NAME", "RULES", "LISTENERS"], rows.collect());

    let rows = picture.backends.iter().map(|one| {
        let addresses: Vec<String> = one
            .endpoints
            .iter()
            .map(|end| {
                if end.state == "ready" {
                    end.address.clone()
                } else {
                    format!("{} ({})", end.address, end.state)
                }
            })
            .collect();
        let what = match (one.problem.is_empty(), addresses.is_empty()) {
            (false, _) => format!("! {}", one.problem),
            (true, true) => "no endpoints: answers 503".to_owned(),
            (true, false) => shortened(&addresses, 4),
        };
        [one.id.clone(), what]
    });
    section(&mut text, "Backends", ["NAME", "ENDPOINTS"], rows.collect());

    let rows = picture.certificates.iter().map(|one| {
        let left = if one.days_left < 0 {
            "EXPIRED".to_owned()
        } else {
            format!("{} days", one.days_left)
        };
        [one.id.clone(), shortened(&one.names, 3), one.not_after.clone(), left]
    });
    section(
        &mut text,
        "Certificates",
        ["NAME", "HOSTS", "VALID UNTIL", "LEFT"],
        rows.collect(),
    );
    if !picture.owned.is_empty() {
        let _ = writeln!(text, "\nAddresses made local here: {}", picture.owned.join(", "));
    }
    text
}

/// Who it is, and where its configuration comes from.
fn head(text: &mut String, picture: &Picture) {
    let state = if picture.ready {
        "ready".to_owned()
    } else {
        format!("NOT READY ({})", picture.not_ready)
    };
    let _ = writeln!(
        text,
        "pierhead {}, process {}, {state}, up {}",
        picture.version,
        picture.pid,
        uptime(picture.uptime_seconds)
    );
    let ebpf = &picture.ebpf;
    if !ebpf.chosen.is_empty() {
        let _ = writeln!(text, "ebpf: {} (asked for {}): {}", ebpf.chosen, ebpf.asked, ebpf.why);
    }
    let configuration = &picture.configuration;
    let what = match &configuration.link {
        Some(link) => link.clone(),
        None => format!("{} objects", configuration.objects),
    };
    let what = match configuration.leader {
        Some(true) => format!("{what}, leader"),
        Some(false) => format!("{what}, standing by"),
        None => what,
    };
    let _ = writeln!(
        text,
        "configuration: {}, version {}, {what}, {} problems",
        configuration.from,
        configuration.version,
        configuration.problems.len()
    );
}

fn section<const N: usize>(text: &mut String, title: &str, head: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let rows: Vec<[&str; N]> = rows
        .iter()
        .map(|row| std::array::from_fn(|column| &*row[column]))
        .collect();
    let _ = write!(text, "\n{title}\n{}", table(head, &rows));
}

fn shortened(words: &[String], most: usize) -> String {
    let shown = words.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    if words.len() > most {
        format!("{shown}, … {} more", words.len() - most)
    } else {
        shown
    }
}

fn uptime(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Bind, Certificate, Listener};

    #[test]
    fn a_picture_reads_well() {
        let mut picture = Picture {
            version: "1".into(),
            pid: 7,
            uptime_seconds: 3725,
            ready: true,
            ..Picture::default()
        };
        picture.configuration.problems.push("a.yaml:1: no".into());
        let listener = |id: &str| Listener {
            id: id.into(),
            kind: "HTTP".into(),
            hosts: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            routes: 2,
            connections: 0,
            requests: 5,
        };
        picture.binds.push(Bind {
            bind: "tcp *:80".into(),
            path: "bound".into(),
            why: "ebpf is off".into(),
            listeners: vec![listener("one"), listener("two")],
        });
        picture.certificates.push(Certificate {
            id: "c".into(),
            names: vec![],
            not_after: "x".into(),
            days_left: -1,
        });
        let text = text(&picture);
        for part in [
            "up 1 h 2 min",
            "! a.yaml:1: no",
            "a, b, c, … 1 more",
            "EXPIRED",
            "\nListeners\nADDRESS",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(text.matches("tcp *:80").count(), 1, "said once for both listeners");
        assert!(!text.contains("Gateways"), "what is empty is left out");
    }
}
