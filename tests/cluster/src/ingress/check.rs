//! Asks what a table asks, and says what came back instead.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use pierhead_wire::client::{Client, Exchange, H1, Response, Tls};
use pierhead_wire::pki::{self, Leaf};
use serde_json::Value;

use super::expand::{Ask, Expect};
use super::table::Speak;

/// Who asks: a client, and the certificates it knows by the name of their Secret.
pub(super) struct Asker<'a> {
    pub(super) client: &'a Client,
    pub(super) leaves: &'a BTreeMap<String, Leaf>,
}

/// One answer, in the words of the checks.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The certificate that was shown, as DER.
    certificate: Option<Vec<u8>>,
}

impl Asker<'_> {
    /// Asks, and compares.
    ///
    /// # Errors
    /// What is not as the table says.
    pub(super) fn holds(&self, ask: &Ask, at: std::net::IpAddr) -> Result<()> {
        let mut pods = BTreeSet::new();
        for _ in 0..ask.more.times {
            let pod = self.once(ask, at).with_context(|| ask.text.clone())?;
            pods.extend(pod);
        }
        if let Some(wanted) = ask.more.pods {
            ensure!(
                pods.len() == wanted,
                "{}: {} of {wanted} pods answered {} requests",
                ask.text,
                pods.len(),
                ask.more.times
            );
        }
        Ok(())
    }

    /// Asks once; the pod that answered.
    fn once(&self, ask: &Ask, at: std::net::IpAddr) -> Result<Option<String>> {
        let port = port_of(ask);
        let answer = match (self.answer(ask, SocketAddr::new(at, port)), &ask.expect) {
            (Err(_), Expect::Refused) => return Ok(None),
            (Ok(answer), Expect::Refused) => bail!("answered with {}, which should have been refused", answer.status),
            (answer, _) => answer?,
        };
        if let Some(secret) = &ask.more.certificate {
            self.is_certificate(&answer, secret)?;
        }
        for (name, wanted) in &ask.more.response {
            compare(&format!("response field {name}"), wanted, answer.header(name))?;
        }
        match &ask.expect {
            Expect::Status(wanted) => {
                ensure!(
                    answer.status == *wanted,
                    "{} instead of {wanted}: {}",
                    answer.status,
                    answer.shown()
                );
                Ok(None)
            }
            Expect::From(wanted) => answer.is_from(wanted, ask).map(Some),
            Expect::Refused => Ok(None),
        }
    }

    fn answer(&self, ask: &Ask, to: SocketAddr) -> Result<Answer> {
        let sni = ask
            .more
            .sni
            .clone()
            .unwrap_or_else(|| without_port(&ask.host).to_owned());
        // Without a name to say, the client names the address, which TLS does not send.
        let sni = if sni.is_empty() { to.ip().to_string() } else { sni };
        match (ask.more.speak, ask.tls) {
            (Speak::H1, false) => exchange(&mut self.client.h1(to)?, ask, None),
            (Speak::H1, true) => {
                // Any certificate will do: which one was shown is looked at afterwards.
                let tls = self.client.tls(to, &sni, &pki::trusting(&["http/1.1"])?)?;
                let certificate = shown_by(&tls);
                exchange(&mut H1::new(tls), ask, certificate)
            }
            (Speak::H2, tls) => {
                let client = if tls {
                    self.client.h2_tls(to, &sni, &pki::trusting(&["h2"])?)
                } else {
                    self.client.h2(to)
                };
                let scheme = if tls { "https" } else { "http" };
                let response = client.get(&format!("{scheme}://{}{}", ask.host, ask.path))?;
                Ok(Answer::of(response, None))
            }
            (Speak::WebSocket, false) => {
                let mut connection = self.client.h1(to)?;
                greet(&mut connection, ask)?;
                Ok(Answer {
                    status: 101,
                    headers: Vec::new(),
                    body: Vec::new(),
                    certificate: None,
                })
            }
            (Speak::WebSocket, true) => bail!("no table needs a WebSocket over TLS"),
        }
    }

    fn is_certificate(&self, answer: &Answer, secret: &str) -> Result<()> {
        let shown = answer.certificate.as_deref().context("no certificate was shown")?;
        let name = self
            .leaves
            .iter()
            .find(|(_, leaf)| &leaf.der()[..] == shown)
            .map_or("an unknown one", |(name, _)| name);
        ensure!(
            name == secret,
            "the certificate of {name} was shown instead of {secret}"
        );
        Ok(())
    }
}

impl Answer {
    fn of(response: Response, certificate: Option<Vec<u8>>) -> Self {
        Self {
            status: response.status,
            headers: response.headers,
            body: response.body,
            certificate,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        body.chars().take(300).collect()
    }

    /// Whether a pod of this Deployment echoed what the table says it saw; the pod.
    fn is_from(&self, wanted: &str, ask: &Ask) -> Result<String> {
        ensure!(
            self.status == 200,
            "{} instead of {wanted}: {}",
            self.status,
            self.shown()
        );
        let echo: Value = serde_json::from_slice(&self.body).with_context(|| format!("no echo: {}", self.shown()))?;
        let service = echo["service"].as_str().unwrap_or_default();
        ensure!(service == wanted, "{service} answered instead of {wanted}");
        for (what, wanted) in &ask.more.seen {
            if let (true, Value::Object(fields)) = (what == "headers", wanted) {
                for (name, wanted) in fields {
                    // Go spells names its own way, and several values as a list.
                    let seen = echo["headers"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .and_then(|(_, values)| values[0].as_str());
                    compare(&format!("request field {name} at the backend"), wanted, seen)?;
                }
            } else {
                compare(&format!("{what} at the backend"), wanted, echo[what].as_str())?;
            }
        }
        Ok(echo["pod"].as_str().unwrap_or_default().to_owned())
    }
}

/// A value to be equal to, or whether there is any.
fn compare(what: &str, wanted: &Value, seen: Option<&str>) -> Result<()> {
    let holds = match wanted {
        Value::Bool(there) => *there == seen.is_some(),
        Value::String(text) => Some(text.as_str()) == seen,
        other => Some(other.to_string().as_str()) == seen,
    };
    ensure!(holds, "{what} is {seen:?} instead of {wanted}");
    Ok(())
}

fn exchange<S: std::io::Read + std::io::Write>(
    connection: &mut H1<S>,
    ask: &Ask,
    certificate: Option<Vec<u8>>,
) -> Result<Answer> {
    let mut request = Exchange::new(&ask.method, &ask.host, &ask.path);
    for (name, value) in &ask.more.headers {
        request = request.field(name, value.clone());
    }
    Ok(Answer::of(connection.exchange(&request)?, certificate))
}

/// Opens a WebSocket and has one word echoed (RFC 6455). By hand, because the backend insists on an `Origin`.
fn greet(connection: &mut H1<TcpStream>, ask: &Ask) -> Result<()> {
    const WORD: &[u8] = b"ahoy";
    let request = Exchange::new("GET", &ask.host, &ask.path)
        .field("Upgrade", "websocket")
        .field("Connection", "Upgrade")
        .field("Sec-WebSocket-Version", "13")
        .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .field("Origin", format!("http://{}", ask.host));
    let response = connection.exchange(&request)?;
    ensure!(response.status == 101, "status {}", response.status);
    // A whole text message, masked with zeros; the answer is not masked.
    let frame = [&[0x81, 0x84, 0, 0, 0, 0], WORD].concat();
    connection.send(&frame)?;
    let mut echoed = [0; 6];
    connection.stream().read_exact(&mut echoed)?;
    ensure!(
        echoed[..] == [&[0x81, 0x04], WORD].concat(),
        "the WebSocket says {echoed:?}"
    );
    Ok(())
}

fn shown_by(tls: &Tls) -> Option<Vec<u8>> {
    Some(tls.conn.peer_certificates()?.first()?.to_vec())
}

fn port_of(ask: &Ask) -> u16 {
    if ask.tls { 443 } else { 80 }
}

fn without_port(host: &str) -> &str {
    host.split_once(':').map_or(host, |(host, _)| host)
}
