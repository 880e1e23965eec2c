//! gRPC, unary and streaming, HTTP/2 on both sides.

use std::rc::Rc;

use anyhow::{Context as _, Result};
use http::Request;

use super::h2::scenario;
use crate::{
    peers::{HOSTS, SERVICES},
    plan::Plan,
    report::Book,
    rigs::stage,
    traffic::{bodies, grpc, h2::Call},
};

/// Bytes of the message of a unary call, and of its answer.
const UNARY: usize = 100;

pub(crate) fn run(plan: &Plan) -> Result<()> {
    stage::with(plan, async |stage| {
        let mut book = Book::new("grpc", "gRPC");
        let tls = stage.pki.client(&[b"h2"], true)?;
        let message = grpc::framed(bodies::piece(0, UNARY));
        let unary = Call::Grpc {
            message: message.clone(),
            answers: 1,
            payload: bodies::piece(0, UNARY),
        };
        let streaming = Call::Grpc {
            message,
            answers: grpc::STREAMED,
            payload: bodies::piece(0, grpc::STREAMED_BYTES),
        };
        for (what, method, call) in [
            ("unary, 100 B", "Echo", &unary),
            ("64 messages of 1 kB", "Stream", &streaming),
        ] {
            for (how, config) in [("clear", None), ("TLS 1.3", Some(&tls))] {
                let title = format!("{what}, {how}");
                if plan.wants(&title) {
                    let heads = heads(method, config.is_some(), HOSTS)?;
                    let samples = scenario(plan, &stage, &title, &heads, call, config);
                    book.add(samples.await.with_context(|| title.clone())?);
                }
            }
        }
        book.write(plan)
    })
}

pub(super) fn heads(method: &str, https: bool, hosts: usize) -> Result<Rc<[Request<()>]>> {
    (0..hosts * SERVICES.len())
        .map(|n| {
            let (host, service) = (n * 7 % hosts, SERVICES[n % SERVICES.len()]);
            let scheme = if https { "https" } else { "http" };
            Ok(Request::builder()
                .method("POST")
                .uri(format!("{scheme}://g{host}.example.com/{service}/{method}"))
                .header("user-agent", "bench/1.0")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?)
        })
        .collect()
}
