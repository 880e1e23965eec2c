//! gRPC by hand: five bytes before each message, the status in trailers.

use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::h2::{H2, fields};

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The authority.
    pub host: &'a str,
    /// `/package.Service/Method`.
    pub path: &'a str,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub http_status: u16,
    /// `grpc-status`, from trailers or, when there is no message, from the head.
    pub status: Option<u32>,
    /// The messages.
    pub messages: Vec<Bytes>,
    /// Fields of the head.
    pub headers: Vec<(String, String)>,
    /// Whether the status came in trailers.
    pub in_trailers: bool,
}

impl H2 {
    /// Sends all messages, then reads all answers.
    pub fn grpc(&self, call: Call<'_>, messages: &[&[u8]]) -> Result<Reply> {
        self.grpc_talk(call, messages, false)
    }

    /// Sends a message only after the answer to the one before it came: both directions must flow.
    pub fn grpc_in_turns(&self, call: Call<'_>, messages: &[&[u8]]) -> Result<Reply> {
        self.grpc_talk(call, messages, true)
    }

    fn grpc_talk(&self, call: Call<'_>, messages: &[&[u8]], in_turns: bool) -> Result<Reply> {
        let messages: Vec<Bytes> = messages.iter().map(|message| framed(message)).collect();
        let scheme_and_host = format!("http://{}{}", call.host, call.path);
        self.with(async |sender| {
            let (send, receive) = mpsc::unbounded_channel::<Bytes>();
            let stream = futures_util::stream::unfold(receive, |mut receive| async move {
                receive
                    .recv()
                    .await
                    .map(|message| (Ok::<_, Infallible>(Frame::data(message)), receive))
            });
            let request = Request::post(scheme_and_host)
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .body(StreamBody::new(Box::pin(stream)))?;
            let mut waiting = messages.into_iter();
            if in_turns {
                send.send(waiting.next().context("no message")?)?;
            } else {
                waiting.by_ref().try_for_each(|message| send.send(message))?;
            }
            let mut send = in_turns.then_some(send);
            sender.ready().await?;
            let (head, mut body) = sender.send_request(request).await?.into_parts();
            let mut reply = Reply {
                http_status: head.status.as_u16(),
                status: status(&head.headers),
                messages: Vec::new(),
                headers: fields(&head.headers),
                in_trailers: false,
            };
            let mut rest = BytesMut::new();
            while let Some(frame) = body.frame().await {
                match frame?.into_data() {
                    Ok(data) => rest.extend_from_slice(&data),
                    Err(frame) => {
                        reply.status = frame.trailers_ref().and_then(status);
                        reply.in_trailers = true;
                    }
                }
                while let Some(message) = unframed(&mut rest) {
                    reply.messages.push(message);
                    match (&send, waiting.next()) {
                        (Some(open), Some(next)) => open.send(next)?,
                        _ => send = None,
                    }
                }
            }
            ensure!(rest.is_empty(), "half a message is left: {rest:?}");
            Ok(reply)
        })
    }
}

fn status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

fn unframed(rest: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(rest.get(1..5)?.try_into().ok()?) as usize;
    if rest.len() < 5 + length {
        return None;
    }
    Some(rest.split_to(5 + length).freeze().slice(5..))
}
