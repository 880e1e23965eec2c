//! The corpus against its own expectations, and against hyper.

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pierhead_http1::{Limits, Method};
use support::case::{self, Case};
use support::stream::{self, Ending, Message, Outcome};
use tokio::io::AsyncWriteExt;

#[test]
fn the_corpus_is_large_enough_to_mean_something() {
    let count = case::load("requests").len() + case::load("responses").len();
    assert!(count >= 300, "{count} cases");
}

#[test]
fn requests_are_judged_as_the_rfc_says() {
    judge(&case::load("requests"), |case, cuts| {
        stream::requests(&case.wire, cuts, &Limits::default())
    });
}

#[test]
fn responses_are_judged_as_the_rfc_says() {
    judge(&case::load("responses"), |case, cuts| {
        stream::response(&case.wire, cuts, method(case), &Limits::default())
    });
}

#[test]
fn no_request_that_hyper_refuses_passes_and_what_both_take_is_the_same() {
    compare(&case::load("requests"), |case| {
        let ours = stream::requests(&case.wire, &[], &Limits::default());
        (ours, hyper_requests(&case.wire))
    });
}

#[test]
fn no_response_that_hyper_refuses_passes_and_what_both_take_is_the_same() {
    compare(&case::load("responses"), |case| {
        let ours = stream::response(&case.wire, &[], method(case), &Limits::default());
        (ours, hyper_response(&case.wire, &case.method))
    });
}

fn method(case: &Case) -> Method {
    Method::new(case.method.as_bytes()).expect("a method")
}

/// Each case whole, and byte by byte.
fn judge(cases: &[Case], run: impl Fn(&Case, &[usize]) -> Outcome) {
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = run(case, &[]);
        let bodies: Vec<_> = outcome.messages.iter().map(|message| message.body.clone()).collect();
        let ending = match outcome.ending {
            Ending::Clean => String::new(),
            Ending::Incomplete => "incomplete".to_owned(),
            Ending::Extra => "extra".to_owned(),
            Ending::Refused(error) => format!("reject {error:?}"),
        };
        if bodies != case.bodies || ending != case.ending {
            let shown: Vec<_> = bodies
                .iter()
                .map(|body| String::from_utf8_lossy(body).into_owned())
                .collect();
            wrong.push(format!(
                "{}: got {shown:?} then {ending:?}, wanted {:?} then {:?}",
                case.name,
                case.bodies.len(),
                case.ending
            ));
        }
        let bytewise: Vec<_> = (1..case.wire.len()).collect();
        if case.wire.len() < 20_000 && run(case, &bytewise) != outcome {
            wrong.push(format!("{}: another result byte by byte", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What hyper took, in order; it tells no more than that.
type Taken = Vec<Message>;

fn compare(cases: &[Case], run: impl Fn(&Case) -> (Outcome, Taken)) {
    let mut wrong = Vec::new();
    let mut stricter = 0;
    for case in cases {
        let (mut ours, mut hypers) = run(case);
        // hyper keeps the order of fields only within one name.
        for message in ours.messages.iter_mut().chain(&mut hypers) {
            message.fields.sort_by(|(one, _), (two, _)| one.cmp(two));
            message.trailers.sort_by(|(one, _), (two, _)| one.cmp(two));
        }
        if hypers.len() > ours.messages.len() {
            stricter += 1;
            if matches!(ours.ending, Ending::Clean) && case.differs.is_none() {
                wrong.push(format!(
                    "{}: hyper sees {} messages, we {}",
                    case.name,
                    hypers.len(),
                    ours.messages.len()
                ));
            }
        }
        if hypers.len() < ours.messages.len() && case.laxer.is_none() {
            wrong.push(format!(
                "{}: hyper takes only {} of our {} messages",
                case.name,
                hypers.len(),
                ours.messages.len()
            ));
        }
        if hypers.len() >= ours.messages.len() && case.laxer.is_some() {
            wrong.push(format!("{}: says that we are laxer, but hyper takes it too", case.name));
        }
        let same = ours.messages.iter().zip(&hypers).all(|(ours, hypers)| ours == hypers);
        if !same && case.differs.is_none() {
            wrong.push(format!(
                "{}: decoded otherwise\n  ours  {:?}\n  hyper {hypers:?}",
                case.name, ours.messages
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(stricter > 0, "the corpus must hold what we refuse and hyper takes");
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), work)
            .await
            .expect("hyper to finish")
    })
}

fn fields(map: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

/// All requests that hyper's server delivers whole.
fn hyper_requests(wire: &[u8]) -> Taken {
    let taken = Arc::new(Mutex::new(Vec::new()));
    on_a_runtime(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(wire).await.expect("room for the wire");
        client.shutdown().await.expect("a duplex stream shuts down");
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let taken = Arc::clone(&taken);
            async move {
                let (head, body) = request.into_parts();
                // An error ends the connection: only whole requests count.
                let body = body.collect().await?;
                let trailers = body.trailers().map(fields).unwrap_or_default();
                taken.lock().expect("no panic").push(Message {
                    start: (head.method.to_string(), head.uri.to_string()),
                    fields: fields(&head.headers),
                    body: body.to_bytes().to_vec(),
                    trailers,
                });
                Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
            }
        });
        // How the connection ends is of no interest: the verdict is what was taken.
        let _ = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(server), service)
            .with_upgrades()
            .await;
    });
    let taken = taken.lock().expect("no panic");
    taken.clone()
}

/// The response that hyper's client delivers whole, if it does.
fn hyper_response(wire: &[u8], method: &str) -> Taken {
    on_a_runtime(async {
        let (client, mut server) = tokio::io::duplex(1 << 20);
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(client))
            .await
            .expect("a handshake");
        let target = if method == "CONNECT" { "example.com:443" } else { "/" };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "example.com");
        let request = request.body(Empty::new()).expect("a request");
        let exchange = async {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let tunnel = head.status == 101 || (method == "CONNECT" && head.status.is_success());
            let (body, trailers) = if tunnel {
                (Vec::new(), Vec::new())
            } else {
                let body = body.collect().await.ok()?;
                let trailers = body.trailers().map(fields).unwrap_or_default();
                (body.to_bytes().to_vec(), trailers)
            };
            let reason = head.extensions.get::<hyper::ext::ReasonPhrase>();
            let reason = reason.map_or_else(
                || head.status.canonical_reason().unwrap_or_default().to_owned(),
                |reason| String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            );
            Some(Message {
                start: (head.status.as_u16().to_string(), reason),
                fields: fields(&head.headers),
                body,
                trailers,
            })
        };
        let serve = async {
            // hyper discards a response that comes before its request.
            let mut byte = [0; 1];
            tokio::io::AsyncReadExt::read_exact(&mut server, &mut byte)
                .await
                .expect("the request");
            server.write_all(wire).await.expect("room for the wire");
            server.shutdown().await.expect("a duplex stream shuts down");
            Ok::<_, Infallible>(server)
        };
        let connection = connection.with_upgrades();
        let (message, _connection, _server) = tokio::join!(exchange, connection, serve);
        message.into_iter().collect()
    })
}
