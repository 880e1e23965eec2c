//! Against the crate `h2` as the other side, in both roles.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing fails")]

mod support;

use std::collections::HashMap;

use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, Request, Response};
use pierhead_http2::{Code, Config, Connection, Event, Policy, Pseudo, Role};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

/// One message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

fn message() -> impl Strategy<Value = Message> {
    let field = ("[a-z][a-z0-9-]{0,20}", "[ -~]{0,40}")
        .prop_map(|(name, value)| (format!("x-{name}"), value.trim().to_owned()));
    let fields = proptest::collection::vec(field, 0..8);
    let size = prop_oneof![Just(0usize), 1..100usize, 1..200_000usize];
    let trailers = proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,20}"), 0..3);
    (fields, size, any::<u8>(), trailers).prop_map(|(fields, size, seed, trailers)| Message {
        fields,
        body: (0..size)
            .map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed))
            .collect(),
        trailers: trailers
            .into_iter()
            .map(|(name, value)| (format!("t-{name}"), value.trim().to_owned()))
            .collect(),
    })
}

fn sorted(mut fields: Vec<(String, String)>) -> Vec<(String, String)> {
    fields.sort();
    fields
}

fn of_map(map: &HeaderMap) -> Vec<(String, String)> {
    let all = map.iter().map(|(name, value)| {
        let value = std::str::from_utf8(value.as_bytes()).unwrap();
        (name.as_str().to_owned(), value.to_owned())
    });
    sorted(
        all.filter(|(name, _)| name.starts_with("x-") || name.starts_with("t-"))
            .collect(),
    )
}

fn to_map(fields: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    map
}

async fn read_all(mut body: h2::RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap().unwrap_or_default())
}

async fn send_all(mut stream: h2::SendStream<Bytes>, message: &Message) {
    let mut rest = Bytes::from(message.body.clone());
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        while stream.capacity() == 0 {
            std::future::poll_fn(|cx| stream.poll_capacity(cx))
                .await
                .unwrap()
                .unwrap();
        }
        let count = stream.capacity();
        stream.send_data(rest.split_to(count.min(rest.len())), false).unwrap();
    }
    stream.send_trailers(to_map(&message.trailers)).unwrap();
}

/// What our side has of a stream.
#[derive(Debug, Default)]
struct Own {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    ended: bool,
    /// What is still to be said.
    say: Option<Message>,
    sent: usize,
    headed: bool,
}

fn texts(fields: &pierhead_http2::Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    sorted(
        fields
            .regular()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
    )
}

/// Our side: what comes is collected; what is to be said is said as windows allow.
struct Side {
    connection: Connection<Own>,
    reading: ReadHalf<DuplexStream>,
    writing: WriteHalf<DuplexStream>,
    input: Vec<u8>,
}

impl Side {
    fn new(config: &Config, io: DuplexStream) -> Self {
        let (reading, writing) = split(io);
        Self {
            connection: Connection::new(config),
            reading,
            writing,
            input: Vec::new(),
        }
    }

    fn take(&mut self) {
        loop {
            let step = self.connection.read(&self.input).unwrap();
            match step.event {
                Some(Event::Request { stream, end }) => {
                    assert_eq!(self.connection.fields().pseudo(Pseudo::Method), Some(&b"POST"[..]));
                    let fields = texts(self.connection.fields());
                    let own = self.connection.stream(stream).unwrap();
                    (own.fields, own.ended) = (fields, end);
                }
                Some(Event::Response { stream, status, end }) => {
                    assert_eq!(status, 200);
                    let fields = texts(self.connection.fields());
                    let own = self.connection.stream(stream).unwrap();
                    (own.fields, own.ended) = (fields, end);
                }
                Some(Event::Data { stream, ref bytes, end }) => {
                    let count = bytes.len();
                    let own = self.connection.stream(stream).unwrap();
                    own.body.extend_from_slice(&self.input[bytes.clone()]);
                    own.ended |= end;
                    self.connection.consumed(stream, count);
                }
                Some(Event::Trailers { stream }) => {
                    let trailers = texts(self.connection.fields());
                    let own = self.connection.stream(stream).unwrap();
                    (own.trailers, own.ended) = (trailers, true);
                }
                Some(Event::Gone { .. }) => panic!("{step:?}"),
                _ => {}
            }
            self.input.drain(..step.consumed);
            if step.event.is_none() {
                return;
            }
        }
    }

    fn say(&mut self) {
        let mut ready = Vec::new();
        self.connection.for_each(|id, own| {
            if own.say.is_some() {
                ready.push(id);
            }
        });
        for id in ready {
            let own = self.connection.stream(id).unwrap();
            let message = own.say.take().unwrap();
            let (mut sent, headed) = (own.sent, own.headed);
            if !headed {
                let mut head = self.connection.head(id).unwrap();
                head.field(b":status", b"200", Policy::Index);
                for (name, value) in &message.fields {
                    head.field(name.as_bytes(), value.as_bytes(), Policy::Index);
                }
                head.finish(false);
            }
            loop {
                let count = self.connection.data(id, &message.body[sent..]);
                sent += count;
                if count == 0 {
                    break;
                }
            }
            if sent == message.body.len() {
                if message.trailers.is_empty() {
                    self.connection.end(id);
                } else {
                    let mut head = self.connection.head(id).unwrap();
                    for (name, value) in &message.trailers {
                        head.field(name.as_bytes(), value.as_bytes(), Policy::Once);
                    }
                    head.finish(true);
                }
            } else {
                let own = self.connection.stream(id).unwrap();
                own.say = Some(message);
                own.sent = sent;
                own.headed = true;
            }
        }
    }

    /// One turn: says, sends, and reads once. Whether the other side is still there.
    async fn turn(&mut self) -> bool {
        loop {
            // The output takes more once it was sent.
            self.say();
            if self.connection.output().is_empty() {
                break;
            }
            let output = self.connection.output().to_vec();
            tokio::select! {
                written = self.writing.write(&output) => match written {
                    Ok(count) => self.connection.sent(count),
                    Err(_) => return false,
                },
                read = self.reading.read_buf(&mut self.input) => {
                    if read.unwrap_or(0) == 0 {
                        return false;
                    }
                    self.take();
                    // There may be more to say now.
                    return true;
                }
            }
        }
        let read = self.reading.read_buf(&mut self.input).await.unwrap_or(0);
        self.take();
        read > 0
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(test));
}

/// `h2` asks, we answer with what is in `answers`, by number.
async fn we_serve(requests: Vec<Message>, answers: Vec<Message>, pipe: usize) {
    let (ours, theirs) = duplex(pipe);
    let config = Config {
        max_streams: 100,
        max_fields_bytes: 1 << 16,
        ..support::config(Role::Server)
    };
    let expected = requests.clone();
    let replies = answers.clone();
    let serving = async move {
        let mut side = Side::new(&config, ours);
        while side.turn().await {
            let mut ended = Vec::new();
            side.connection.for_each(|id, own| {
                if own.ended && own.say.is_none() && !own.headed {
                    ended.push(id);
                }
            });
            for id in ended {
                if !side.connection.is_sendable(id) {
                    continue;
                }
                let number = (id / 2) as usize;
                let own = side.connection.stream(id).unwrap();
                let wanted = &expected[number];
                assert_eq!(own.fields, sorted(wanted.fields.clone()));
                assert_eq!(own.body, wanted.body);
                assert_eq!(own.trailers, sorted(wanted.trailers.clone()));
                own.say = Some(replies[number].clone());
            }
        }
        panic!("the client went away");
    };
    let asking = h2_asks(requests, answers, theirs);
    // In one task, so that what fails on either side fails the test.
    tokio::select! {
        () = serving => {}
        () = asking => {}
    }
}

async fn h2_asks(requests: Vec<Message>, answers: Vec<Message>, theirs: DuplexStream) {
    let (mut send, connection) = client::handshake(theirs).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let mut waiting = Vec::new();
    for message in &requests {
        send = send.ready().await.unwrap();
        let mut request = Request::post("http://a.test/b").body(()).unwrap();
        *request.headers_mut() = to_map(&message.fields);
        let (response, stream) = send.send_request(request, false).unwrap();
        let message = message.clone();
        tokio::task::spawn_local(async move { send_all(stream, &message).await });
        waiting.push(response);
    }
    // All at once: an answer that nobody reads holds the connection's window.
    let mut reading = tokio::task::JoinSet::new();
    for (response, wanted) in waiting.into_iter().zip(answers) {
        reading.spawn_local(async move {
            let (parts, body) = response.await.unwrap().into_parts();
            assert_eq!(of_map(&parts.headers), sorted(wanted.fields));
            let (body, trailers) = read_all(body).await;
            assert_eq!(body, wanted.body);
            assert_eq!(of_map(&trailers), sorted(wanted.trailers));
        });
    }
    while let Some(done) = reading.join_next().await {
        done.unwrap();
    }
}

/// We ask, `h2` answers.
async fn we_ask(requests: Vec<Message>, answers: Vec<Message>, pipe: usize) {
    let (ours, theirs) = duplex(pipe);
    let expected = requests.clone();
    let replies = answers.clone();
    let serving = async move {
        let mut connection = server::Builder::new()
            .initial_window_size(50_000)
            .handshake::<_, Bytes>(theirs)
            .await
            .unwrap();
        let mut number = 0;
        let mut failed = tokio::task::JoinSet::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (wanted, reply) = (expected[number].clone(), replies[number].clone());
            number += 1;
            failed.spawn_local(async move {
                assert_eq!(request.uri(), "http://a.test/b");
                let (parts, body) = request.into_parts();
                assert_eq!(of_map(&parts.headers), sorted(wanted.fields));
                let (body, trailers) = read_all(body).await;
                assert_eq!(body, wanted.body);
                assert_eq!(of_map(&trailers), sorted(wanted.trailers));
                let mut response = Response::new(());
                *response.headers_mut() = to_map(&reply.fields);
                let stream = respond.send_response(response, false).unwrap();
                send_all(stream, &reply).await;
            });
        }
        while let Some(done) = failed.join_next().await {
            done.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = serving => {}
        () = ask(requests, answers, ours) => {}
    }
}

async fn ask(requests: Vec<Message>, answers: Vec<Message>, ours: DuplexStream) {
    let config = Config {
        max_fields_bytes: 1 << 16,
        ..support::config(Role::Client)
    };
    let mut side = Side::new(&config, ours);
    while !side.connection.is_settled() {
        assert!(side.turn().await);
    }
    let mut open = HashMap::new();
    for (message, answer) in requests.into_iter().zip(answers) {
        let id = side.connection.open(Own::default(), false).unwrap();
        let mut head = side.connection.head(id).unwrap();
        let pseudo = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/b"),
        ];
        for (name, value) in pseudo {
            head.field(name.as_bytes(), value.as_bytes(), Policy::Index);
        }
        for (name, value) in &message.fields {
            head.field(name.as_bytes(), value.as_bytes(), Policy::Index);
        }
        head.finish(false);
        let own = side.connection.stream(id).unwrap();
        own.headed = true;
        own.say = Some(message);
        open.insert(id, answer);
    }
    while !open.is_empty() {
        assert!(side.turn().await, "{} answers are missing", open.len());
        open.retain(|id, wanted| {
            let own = side.connection.stream(*id).unwrap();
            if !own.ended {
                return true;
            }
            assert_eq!(own.fields, sorted(wanted.fields.clone()));
            assert_eq!(own.body, wanted.body);
            assert_eq!(own.trailers, sorted(wanted.trailers.clone()));
            side.connection.forget(*id, Code::CANCEL);
            false
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn h2_asks_and_we_answer(pairs in proptest::collection::vec((message(), message()), 1..12), pipe in 100..100_000usize) {
        let (requests, answers) = pairs.into_iter().unzip();
        run(we_serve(requests, answers, pipe));
    }

    #[test]
    fn we_ask_and_h2_answers(pairs in proptest::collection::vec((message(), message()), 1..12), pipe in 100..100_000usize) {
        let (requests, answers) = pairs.into_iter().unzip();
        run(we_ask(requests, answers, pipe));
    }
}
