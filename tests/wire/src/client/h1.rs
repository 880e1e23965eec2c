//! A small HTTP/1 client that sends exactly the bytes it is given and reads what comes back strictly.

use std::io::{BufRead as _, BufReader, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longest line of a head that is read.
const LONGEST_LINE: usize = 1 << 20;

/// A connection that exchanges requests and responses.
pub struct H1<S: Read + Write> {
    stream: BufReader<S>,
}

/// A request to send: line, fields and body exactly as given, plus the framing that the body needs.
#[derive(Debug, Clone)]
pub struct Exchange<'a> {
    method: &'a str,
    target: &'a str,
    host: Option<&'a str>,
    fields: Vec<(&'a str, String)>,
    body: Body<'a>,
}

#[derive(Debug, Clone)]
enum Body<'a> {
    None,
    Sized(&'a [u8]),
    Chunked(&'a [u8], Vec<(&'a str, &'a str)>),
}

/// Names in lower case and values, in the order they came.
pub(crate) type Fields = Vec<(String, String)>;

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The version as written, `HTTP/1.1`.
    pub version: String,
    /// The fields in the order they came, names in lower case.
    pub headers: Fields,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Fields,
}

impl<'a> Exchange<'a> {
    /// A request with a `Host`.
    pub fn new(method: &'a str, host: &'a str, target: &'a str) -> Self {
        Self {
            method,
            target,
            host: Some(host),
            fields: Vec::new(),
            body: Body::None,
        }
    }

    /// With one more field.
    #[must_use]
    pub fn field(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// With a body of a known length.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Body::Sized(body);
        self
    }

    /// With a body in chunks, and fields after it.
    #[must_use]
    pub fn chunked(mut self, body: &'a [u8], trailers: &[(&'a str, &'a str)]) -> Self {
        self.body = Body::Chunked(body, trailers.to_vec());
        self
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = self.host {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(body) => head += &format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(_, trailers) => {
                head += "Transfer-Encoding: chunked\r\n";
                if !trailers.is_empty() {
                    let names: Vec<&str> = trailers.iter().map(|(name, _)| *name).collect();
                    head += &format!("Trailer: {}\r\n", names.join(", "));
                }
            }
        }
        head += "\r\n";
        head.into_bytes()
    }

    fn framed_body(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Sized(body) => body.to_vec(),
            Body::Chunked(body, trailers) => {
                let mut framed = Vec::with_capacity(body.len() + body.len() / 1000 + 64);
                for piece in body.chunks(7000) {
                    framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    framed.extend_from_slice(piece);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    framed.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                }
                framed.extend_from_slice(b"\r\n");
                framed
            }
        }
    }
}

impl<S: Read + Write> H1<S> {
    /// Speaks HTTP/1 over this stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends a `GET` and reads the response.
    pub fn get(&mut self, host: &str, target: &str) -> Result<Response> {
        self.exchange(&Exchange::new("GET", host, target))
    }

    /// Sends the request and reads the response.
    pub fn exchange(&mut self, request: &Exchange<'_>) -> Result<Response> {
        self.send(&request.head())?;
        self.send(&request.framed_body())?;
        self.response(request.method)
    }

    /// Sends the head only, waits for `100 Continue`, then sends the body.
    pub fn exchange_expecting(&mut self, request: &Exchange<'_>) -> Result<Response> {
        self.send(&request.head())?;
        let (status, ..) = self.status_and_fields()?;
        ensure!(status == 100, "expected 100 Continue, got {status}");
        self.send(&request.framed_body())?;
        self.response(request.method)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// Reads the response to a request of this method, after any interim ones.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        let (status, version, headers) = loop {
            let (status, version, headers) = self.status_and_fields()?;
            if !(100..200).contains(&status) || status == 101 {
                break (status, version, headers);
            }
        };
        let mut response = Response {
            status,
            version,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        if method == "HEAD" || matches!(status, 101 | 204 | 304) {
            return Ok(response);
        }
        let lengths: Vec<&str> = response.all("content-length").collect();
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        match (chunked, lengths.as_slice()) {
            (true, []) => (response.body, response.trailers) = self.chunks()?,
            (false, [length]) => {
                let mut body = vec![0; length.parse().context("Content-Length")?];
                self.stream.read_exact(&mut body).context("the body ended early")?;
                response.body = body;
            }
            (false, []) => drop(self.stream.read_to_end(&mut response.body)?),
            _ => bail!("ambiguous framing: {:?}", response.headers),
        }
        Ok(response)
    }

    /// Whether the other side has closed and nothing is left to read.
    pub fn at_end(&mut self) -> Result<bool> {
        Ok(self.stream.fill_buf()?.is_empty())
    }

    /// The stream below, for what is not HTTP.
    pub fn stream(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    fn status_and_fields(&mut self) -> Result<(u16, String, Fields)> {
        let line = self.line()?;
        let mut words = line.splitn(3, ' ');
        let (Some(version), Some(status)) = (words.next(), words.next()) else {
            bail!("bad status line {line:?}")
        };
        ensure!(version.starts_with("HTTP/1."), "bad status line {line:?}");
        let status = status.parse().with_context(|| format!("bad status line {line:?}"))?;
        Ok((status, version.to_owned(), self.fields()?))
    }

    fn fields(&mut self) -> Result<Fields> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').with_context(|| format!("bad field {line:?}"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .with_context(|| format!("bad chunk size {line:?}"))?;
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            let start = body.len();
            body.resize(start + size, 0);
            self.stream
                .read_exact(&mut body[start..])
                .context("a chunk ended early")?;
            ensure!(self.line()?.is_empty(), "a chunk is longer than it says");
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let count = (&mut self.stream)
            .take(LONGEST_LINE as u64)
            .read_until(b'\n', &mut line)?;
        ensure!(count > 0, "the connection ended where a line was expected");
        let line = line
            .strip_suffix(b"\r\n")
            .with_context(|| format!("a line without CRLF: {line:?}"))?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

impl Response {
    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every field of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// What the echo backend saw. Fails, with the body, when it was not the one that answered.
    pub fn echo(&self) -> Result<Echo> {
        ensure!(
            self.status == 200,
            "status {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        Echo::parse(&self.body)
    }
}

/// What the echo backend saw.
#[derive(Debug, Clone)]
pub struct Echo(Value);

impl Echo {
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(body)
            .with_context(|| format!("not from the echo backend: {}", String::from_utf8_lossy(body)))?;
        Ok(Self(value))
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        self.0["backend"].as_str().unwrap_or_default()
    }

    /// Any other member as text: `method`, `path`, `version`.
    pub fn text(&self, member: &str) -> &str {
        self.0[member].as_str().unwrap_or_default()
    }

    /// Any other member as a number: `body_bytes`, `body_sum`.
    pub fn number(&self, member: &str) -> u64 {
        self.0[member].as_u64().unwrap_or_default()
    }

    /// Every value of a request field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        pairs(&self.0["headers"])
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// Every value of a request trailer.
    pub fn trailers(&self, name: &str) -> Vec<&str> {
        pairs(&self.0["trailers"])
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .collect()
    }
}

fn pairs(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
}
