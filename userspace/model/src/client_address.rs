use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// Who is believed about a client's address, besides the connection itself. Nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientAddress {
    /// Peers whose connections begin with a header of the PROXY protocol, version 1 or 2; theirs that do not are refused. TCP
    /// only.
    #[serde(serialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol: Vec<IpNet>,
    /// `None`: what requests say about it is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_for: Option<ForwardedFor>,
}

/// Whose `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Port` count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForwardedFor {
    /// Peers that are believed, and addresses that are proxies, not clients.
    #[serde(serialize_with = "texts")]
    pub trusted: Vec<IpNet>,
    /// How many proxies stand before us, the peer included; `None`: as many as are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
}

fn texts<S: Serializer>(nets: &[IpNet], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(nets.iter().map(ToString::to_string))
}

impl ClientAddress {
    /// Whether nobody is believed.
    pub fn is_default(&self) -> bool {
        self.proxy_protocol.is_empty() && self.forwarded_for.is_none()
    }
}
