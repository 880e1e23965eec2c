//! Runs the codec over all bytes that one side of a connection sent, cut into given pieces.

use pierhead_http1::{
    BodyDecoder, BodyLength, Error, Headers, Limits, Method, RequestHead, RequestParser, RequestStart, ResponseHead,
    ResponseParser,
};

/// A decoded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or status and reason.
    pub start: (String, String),
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At a message boundary with nothing left, or after a message that closes the connection.
    Clean,
    /// In the middle of a message.
    Incomplete,
    /// Bytes after a response.
    Extra,
    Refused(Error),
}

/// Everything that came out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub messages: Vec<Message>,
    pub ending: Ending,
}

/// Bytes received so far, and how far they are used.
struct Feed<'a> {
    wire: &'a [u8],
    cuts: &'a [usize],
    start: usize,
    end: usize,
}

impl<'a> Feed<'a> {
    fn new(wire: &'a [u8], cuts: &'a [usize]) -> Self {
        let mut feed = Self {
            wire,
            cuts,
            start: 0,
            end: 0,
        };
        feed.more();
        feed
    }

    /// The bytes a caller's buffer would hold: copied, so that an out-of-bounds read past them shows.
    fn input(&self) -> Vec<u8> {
        self.wire[self.start..self.end].to_vec()
    }

    /// Receives the next piece; `false` at the end of the stream.
    fn more(&mut self) -> bool {
        if self.end == self.wire.len() {
            return false;
        }
        self.end = self
            .cuts
            .iter()
            .copied()
            .find(|&cut| cut > self.end)
            .unwrap_or(self.wire.len())
            .min(self.wire.len());
        true
    }
}

/// Parses all requests of `wire`, which arrives cut at the offsets `cuts` (ascending).
pub fn requests(wire: &[u8], cuts: &[usize], limits: &Limits) -> Outcome {
    let mut feed = Feed::new(wire, cuts);
    let mut messages = Vec::new();
    let mut parser = RequestParser::new();
    let mut head = RequestHead::new();
    loop {
        let start = match next_request(&mut feed, &mut parser, &mut head, limits) {
            Ok(start) => start,
            Err(ending) => return Outcome { messages, ending },
        };
        feed.start += start.consumed;
        let (body, trailers) = match body(&mut feed, start.body, limits) {
            Ok(parts) => parts,
            Err(ending) => return Outcome { messages, ending },
        };
        messages.push(Message {
            start: (
                head.method.to_string(),
                String::from_utf8_lossy(head.target.as_bytes()).into_owned(),
            ),
            fields: fields(&head.headers),
            body,
            trailers,
        });
        let tunnel = head.method == Method::Connect || pierhead_http1::upgrade_requested(&head).next().is_some();
        if !start.keep_alive || tunnel {
            return Outcome {
                messages,
                ending: Ending::Clean,
            };
        }
    }
}

fn next_request(
    feed: &mut Feed<'_>,
    parser: &mut RequestParser,
    head: &mut RequestHead,
    limits: &Limits,
) -> Result<RequestStart, Ending> {
    loop {
        let input = feed.input();
        match parser.parse(&input, head, limits) {
            Ok(Some(start)) => return Ok(start),
            Ok(None) if feed.more() => {}
            Ok(None) if RequestParser::is_idle(&input) => return Err(Ending::Clean),
            Ok(None) => return Err(Ending::Incomplete),
            Err(error) => return Err(Ending::Refused(error)),
        }
    }
}

/// Parses the response to a request with `method`; interim responses are skipped.
pub fn response(wire: &[u8], cuts: &[usize], method: Method, limits: &Limits) -> Outcome {
    let mut feed = Feed::new(wire, cuts);
    let mut parser = ResponseParser::new();
    let mut head = ResponseHead::new();
    let refused = |ending| Outcome {
        messages: Vec::new(),
        ending,
    };
    loop {
        let start = match parser.parse(&feed.input(), &mut head, method, limits) {
            Ok(Some(start)) => start,
            Ok(None) if feed.more() => continue,
            Ok(None) => return refused(Ending::Incomplete),
            Err(error) => return refused(Ending::Refused(error)),
        };
        feed.start += start.consumed;
        if head.status.is_interim() {
            continue;
        }
        let (body, trailers) = match body(&mut feed, start.body, limits) {
            Ok(parts) => parts,
            Err(ending) => return refused(ending),
        };
        let message = Message {
            start: (
                head.status.to_string(),
                String::from_utf8_lossy(head.reason()).into_owned(),
            ),
            fields: fields(&head.headers),
            body,
            trailers,
        };
        let tunnel = head.status.code() == 101 || (method == Method::Connect && head.status.code() < 300);
        let extra = feed.start < wire.len() && !tunnel;
        let ending = if extra { Ending::Extra } else { Ending::Clean };
        return Outcome {
            messages: vec![message],
            ending,
        };
    }
}

type Parts = (Vec<u8>, Vec<(String, Vec<u8>)>);

fn body(feed: &mut Feed<'_>, length: BodyLength, limits: &Limits) -> Result<Parts, Ending> {
    let mut decoder = BodyDecoder::new(length, limits);
    let mut data = Vec::new();
    loop {
        let input = feed.input();
        let step = decoder.decode(&input).map_err(Ending::Refused)?;
        assert!(
            step.consumed <= input.len() && step.data.end <= step.consumed.max(step.data.end),
            "ranges in bounds"
        );
        assert!(
            step.consumed > 0 || step.done || input.is_empty(),
            "a step on input makes progress"
        );
        data.extend_from_slice(&input[step.data]);
        feed.start += step.consumed;
        if step.done {
            break;
        }
        if feed.start == feed.end && !feed.more() {
            decoder.finish().map_err(|_| Ending::Incomplete)?;
            break;
        }
    }
    let trailers = decoder.take_trailers();
    Ok((data, trailers.as_ref().map(fields).unwrap_or_default()))
}

/// Names in lower case, values as they are.
fn fields(headers: &Headers) -> Vec<(String, Vec<u8>)> {
    headers
        .iter()
        .map(|field| {
            let name = String::from_utf8_lossy(field.name.as_bytes()).to_ascii_lowercase();
            (name, field.value.as_bytes().to_vec())
        })
        .collect()
}
