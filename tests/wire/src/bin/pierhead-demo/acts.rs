//! The lines of the transcript: each does something real and says what came of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use pierhead_wire::client::{Call, Exchange};
use pierhead_wire::net::{CLIENT, GATE, NODE};
use pierhead_wire::poll::eventually;
use tungstenite::Message;

use crate::stage::Stage;

type Act = fn(&Stage) -> Result<String>;

const ACTS: &[(&str, Act)] = &[
    ("Ingress by host        http://blog.demo/", ingress_by_host),
    ("Ingress by path        http://blog.demo/api", ingress_by_path),
    ("Ingress, other host    http://other.demo/", ingress_unknown),
    ("Gateway, weights 3:1   http://shop.demo/", weights),
    ("Gateway, header match  x-version: blue", header_match),
    ("TLS, HTTP/1.1          https://shop.demo/", tls),
    ("TLS, HTTP/2 by ALPN    https://shop.demo/", tls_h2),
    ("WebSocket              ws://chat.demo/", websocket),
    ("gRPC, a stream         talk.demo demo.Talk/Say", grpc),
    ("TCP                    10.96.0.10:9000", tcp),
    ("UDP                    10.96.0.10:5300", udp),
    ("A live change          live.demo: red to blue", live_change),
];

/// Plays all; how many were wrong.
pub(crate) fn play(stage: &Stage) -> usize {
    let mut wrong = 0;
    for (title, act) in ACTS {
        match act(stage) {
            Ok(said) => println!("  ok     {title:<48} {said}"),
            Err(error) => {
                wrong += 1;
                println!("  WRONG  {title:<48} {error:#}");
            }
        }
    }
    wrong
}

fn gateway(port: u16) -> SocketAddr {
    GATE.v4_at(port)
}

fn ingress_by_host(stage: &Stage) -> Result<String> {
    answered_by(stage, NODE.v4_at(80), "blog.demo", "/", "red")
}

fn ingress_by_path(stage: &Stage) -> Result<String> {
    answered_by(stage, NODE.v4_at(80), "blog.demo", "/api/posts", "blue")
}

fn answered_by(stage: &Stage, to: SocketAddr, host: &str, path: &str, backend: &str) -> Result<String> {
    let echo = stage.client.get(to, host, path)?.echo()?;
    ensure!(echo.backend() == backend, "{} answered", echo.backend());
    let forwarded = echo.fields("x-forwarded-for");
    ensure!(forwarded == [CLIENT.v4.to_string()], "X-Forwarded-For: {forwarded:?}");
    Ok(format!("{backend} answered, and saw the client {}", CLIENT.v4))
}

fn ingress_unknown(stage: &Stage) -> Result<String> {
    let response = stage.client.get(NODE.v4_at(80), "other.demo", "/")?;
    ensure!(response.status == 404, "status {}", response.status);
    Ok("404".to_owned())
}

fn weights(stage: &Stage) -> Result<String> {
    let mut h1 = stage.client.h1(gateway(80))?;
    let mut counts = [0, 0];
    for _ in 0..400 {
        match h1.get("shop.demo", "/")?.echo()?.backend() {
            "red" => counts[0] += 1,
            _ => counts[1] += 1,
        }
    }
    let [red, blue] = counts;
    ensure!((299..=301).contains(&red), "red {red}, blue {blue}");
    Ok(format!("of 400: red {red}, blue {blue}"))
}

fn header_match(stage: &Stage) -> Result<String> {
    let mut h1 = stage.client.h1(gateway(80))?;
    for _ in 0..20 {
        let echo = h1
            .exchange(&Exchange::new("GET", "shop.demo", "/").field("X-Version", "blue"))?
            .echo()?;
        ensure!(echo.backend() == "blue", "{} answered", echo.backend());
    }
    Ok("20 of 20 from blue".to_owned())
}

fn tls(stage: &Stage) -> Result<String> {
    let config = stage.authority.client(&["http/1.1"])?;
    let mut h1 = stage.client.h1_tls(gateway(443), "shop.demo", &config)?;
    let echo = h1.get("shop.demo", "/")?.echo()?;
    ensure!(
        echo.fields("x-forwarded-proto") == ["https"],
        "X-Forwarded-Proto: {:?}",
        echo.fields("x-forwarded-proto")
    );
    let version = h1.stream().conn.protocol_version();
    Ok(format!(
        "{} answered; {}",
        echo.backend(),
        version.and_then(|it| it.as_str()).unwrap_or("TLS")
    ))
}

fn tls_h2(stage: &Stage) -> Result<String> {
    let h2 = stage
        .client
        .h2_tls(gateway(443), "shop.demo", &stage.authority.client(&["h2", "http/1.1"])?);
    let response = h2.get("https://shop.demo/")?;
    let echo = response.echo()?;
    ensure!(response.version == "HTTP/2.0", "{}", response.version);
    Ok(format!(
        "{} answered; {} outside, {} inside",
        echo.backend(),
        response.version,
        echo.text("version")
    ))
}

fn websocket(stage: &Stage) -> Result<String> {
    let mut socket = stage.client.websocket(gateway(80), "chat.demo", "/")?;
    for text in ["hello", "again"] {
        socket.send(Message::text(text))?;
        let answer = socket.read()?;
        ensure!(answer == Message::text(format!("red: {text}")), "{answer:?}");
    }
    Ok("2 messages there and back".to_owned())
}

fn grpc(stage: &Stage) -> Result<String> {
    let call = Call {
        host: "talk.demo",
        path: "/demo.Talk/Say",
    };
    let reply = stage
        .client
        .h2(gateway(80))
        .grpc_in_turns(call, &[b"one", b"two", b"three"])?;
    ensure!(reply.messages == ["one", "two", "three"], "{reply:?}");
    ensure!(reply.status == Some(0) && reply.in_trailers, "{reply:?}");
    Ok("3 messages in turns, grpc-status 0 in trailers".to_owned())
}

fn tcp(stage: &Stage) -> Result<String> {
    let before = Path::take(stage, "tcp")?;
    let mut stream = stage.client.tcp(gateway(9000))?;
    let mut hello = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut hello)?;
    stream.write_all(b"ping\n")?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    ensure!(line == "ping\n", "{line:?}");
    Ok(format!(
        "\"{}\"; {}",
        hello.trim(),
        Path::take(stage, "tcp")?.since(&before)?
    ))
}

fn udp(stage: &Stage) -> Result<String> {
    let before = Path::take(stage, "udp")?;
    let socket = stage.client.udp(gateway(5300))?;
    socket.send(b"ping")?;
    let mut answer = [0; 100];
    let count = socket.recv(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    ensure!(answer.ends_with(": ping"), "{answer}");
    Ok(format!("\"{answer}\"; {}", Path::take(stage, "udp")?.since(&before)?))
}

fn live_change(stage: &Stage) -> Result<String> {
    let mut h1 = stage.client.h1(gateway(80))?;
    ensure!(
        h1.get("live.demo", "/")?.echo()?.backend() == "red",
        "it did not start with red"
    );
    let routes = std::fs::read_to_string(stage.config.file("routes.yaml"))?;
    let (head, tail) = routes.split_once("hostnames: [live.demo]").unwrap_or_default();
    let changed = format!(
        "{head}hostnames: [live.demo]{}",
        tail.replacen("name: red", "name: blue", 1)
    );
    ensure!(changed != routes, "nothing to change in routes.yaml");
    stage.config.replace("routes.yaml", &changed)?;
    let started = Instant::now();
    eventually("blue answers", || {
        let echo = h1.get("live.demo", "/")?.echo()?;
        ensure!(echo.backend() == "blue", "{} answers", echo.backend());
        Ok(())
    })?;
    Ok(format!(
        "after {} ms, on the same connection",
        started.elapsed().as_millis()
    ))
}

/// Which way packets of one protocol went: by the kernel's own counters.
struct Path {
    packets: f64,
}

impl Path {
    fn take(stage: &Stage, protocol: &str) -> Result<Self> {
        Ok(Self {
            packets: stage
                .gate
                .metric("pierhead_kernel_packets_total", &[("protocol", protocol)])?,
        })
    }

    fn since(&self, before: &Self) -> Result<String> {
        let packets = self.packets - before.packets;
        ensure!(packets > 0.0, "the kernel carried no packet of it");
        Ok(format!("{packets} packets carried by the kernel"))
    }
}
