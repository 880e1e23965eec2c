//! Who is believed about a client's address: `spec.clientAddress` of a GatewayParameters.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cidr,
    gateway_parameters::{GatewayParametersSpec, Invalid, invalid},
};

/// How many prefixes a list may have.
const MAX_CIDRS: usize = 128;

/// As written. [`GatewayParametersSpec::client_address`] reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAddressSpec {
    /// Load balancers that begin each connection with a header of the PROXY protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    /// Proxies whose `X-Forwarded-…` fields count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_for: Option<ForwardedForSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocolSpec {
    #[serde(default, rename = "trustedCIDRs")]
    pub trusted_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedForSpec {
    #[serde(default, rename = "trustedCIDRs")]
    pub trusted_cidrs: Vec<String>,
    /// How many proxies stand before the Gateway; left out: as many as are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u32>,
}

/// Understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    pub proxy_protocol: Vec<IpNet>,
    pub forwarded_for: Option<ForwardedFor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedFor {
    pub trusted: Vec<IpNet>,
    pub hops: Option<u32>,
}

impl GatewayParametersSpec {
    /// # Errors
    /// On what the schema refuses too.
    pub fn client_address(&self) -> Result<ClientAddress, Invalid> {
        let spec = self.client_address.clone().unwrap_or_default();
        let proxy_protocol = match &spec.proxy_protocol {
            Some(proxy) => nets("proxyProtocol", &proxy.trusted_cidrs)?,
            None => Vec::new(),
        };
        let forwarded_for = match &spec.forwarded_for {
            Some(forwarded) => {
                if forwarded.hops == Some(0) {
                    let why = "is at least 1: the peer is the first";
                    return Err(invalid("spec.clientAddress.forwardedFor.hops", why));
                }
                Some(ForwardedFor {
                    trusted: nets("forwardedFor", &forwarded.trusted_cidrs)?,
                    hops: forwarded.hops,
                })
            }
            None => None,
        };
        Ok(ClientAddress {
            proxy_protocol,
            forwarded_for,
        })
    }
}

fn nets(of: &str, texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
    cidr::parse(&format!("spec.clientAddress.{of}.trustedCIDRs"), texts, MAX_CIDRS)
}

pub(crate) fn schema() -> Value {
    let cidrs = |description: &str| cidr::schema(description, MAX_CIDRS);
    json!({
        "type": "object",
        "description": "Who is believed about a client's address, besides the connection itself. Nobody by default.",
        "properties": {
            "proxyProtocol": {
                "type": "object",
                "required": ["trustedCIDRs"],
                "properties": {
                    "trustedCIDRs": cidrs("Load balancers whose connections begin with a header of the PROXY protocol, version 1 \
                        or 2. Their connections without one are refused."),
                },
            },
            "forwardedFor": {
                "type": "object",
                "required": ["trustedCIDRs"],
                "properties": {
                    "trustedCIDRs": cidrs("Proxies whose X-Forwarded-For, -Proto, -Host and -Port count. Of X-Forwarded-For, \
                        what stands before the client's address is removed."),
                    "hops": {
                        "type": "integer",
                        "format": "int32",
                        "description": "How many proxies stand before the Gateway, the one that connects included. Left out: as many \
                            as are in trustedCIDRs.",
                        "minimum": 1,
                        "maximum": 32,
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway_parameters::GatewayParameters;

    fn parse(spec: Value) -> Result<ClientAddress, String> {
        let object: GatewayParameters =
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"clientAddress": spec}})).unwrap();
        object.spec.client_address().map_err(|why| why.to_string())
    }

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(parse(json!({})), Ok(ClientAddress::default()));
        assert_eq!(
            GatewayParametersSpec::default().client_address(),
            Ok(ClientAddress::default())
        );
    }

    #[test]
    fn prefixes_are_parsed_and_what_is_none_is_named() {
        let parsed = parse(json!({
            "proxyProtocol": {"trustedCIDRs": ["10.1.2.3/8"]},
            "forwardedFor": {"trustedCIDRs": ["2001:db8::/32"], "hops": 2},
        }));
        let parsed = parsed.unwrap();
        assert_eq!(parsed.proxy_protocol, ["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(parsed.forwarded_for.unwrap().hops, Some(2));
        for (spec, why) in [
            (
                json!({"proxyProtocol": {"trustedCIDRs": []}}),
                "proxyProtocol.trustedCIDRs: needs",
            ),
            (
                json!({"forwardedFor": {"trustedCIDRs": ["x"]}}),
                "forwardedFor.trustedCIDRs[0]",
            ),
            (
                json!({"forwardedFor": {"trustedCIDRs": ["10.0.0.0/8"], "hops": 0}}),
                "hops",
            ),
        ] {
            let message = parse(spec).unwrap_err();
            assert!(message.contains(why), "{why:?} in {message:?}");
        }
    }
}
