//! Services: which port is meant, where its traffic goes, how one speaks there.

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use pierhead_model::{Backend, BackendId, BackendProtocol, BackendTarget, BackendTls, Hostname, InvalidReason, Origin};

use crate::{Builder, ObjectName};

/// A reference to a port of a Service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRef<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub port: PortRef<'a>,
}

/// A port of the Service (never its targetPort).
#[derive(Clone, Copy, Debug)]
pub enum PortRef<'a> {
    Number(u16),
    Name(&'a str),
}

/// What is carried to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// HTTPRoute: the Service port's `appProtocol` decides; one we do not know is `UnsupportedProtocol` (GEP-1911).
    Http,
    /// GRPCRoute: HTTP/2 unless `appProtocol` contradicts.
    Grpc,
    /// Ingress: as `Http`, but its specification knows no `appProtocol`, so an unknown one is HTTP/1.1.
    Ingress,
    Tcp,
    Udp,
}

/// TLS towards a backend, as the policy for it says.
#[derive(Clone, Debug)]
pub struct TlsChoice {
    /// Tells backends of one Service port apart: the policy's `namespace/name`, and whatever else makes `tls` differ.
    pub key: String,
    /// `Err`: why the policy cannot be followed; requests are answered 5xx, never sent in plaintext.
    pub tls: Result<BackendTls, String>,
}

/// A backend by its name, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Always in the snapshot, as `Invalid` if there is a fault.
    pub id: BackendId,
    pub fault: Option<BackendFault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFault {
    pub reason: InvalidReason,
    pub message: String,
    pub fix: &'static str,
}

/// A port of a Service that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for the only port of a Service.
    pub name: String,
    pub number: u16,
    pub app_protocol: Option<String>,
}

fn fault(reason: InvalidReason, message: String, fix: &'static str) -> BackendFault {
    BackendFault { reason, message, fix }
}

impl PortRef<'_> {
    fn describe(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.to_owned(),
        }
    }
}

impl Carrier {
    /// `spec.ports[].protocol` it can use.
    fn transport(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Http | Self::Grpc | Self::Ingress | Self::Tcp => "TCP",
        }
    }
}

impl<'w> Builder<'w> {
    /// The port a reference means; TCP and UDP ports of one number are told apart by `carrier`.
    ///
    /// # Errors
    /// `BackendNotFound` when there is no such Service or port.
    pub fn service_port(&mut self, service: ServiceRef<'_>, carrier: Carrier) -> Result<ServicePort, BackendFault> {
        self.find_port(service, carrier).map(|(_, port)| port)
    }

    fn find_port(&mut self, r: ServiceRef<'_>, carrier: Carrier) -> Result<(&'w Service, ServicePort), BackendFault> {
        self.note(|recording| {
            let known = |name: &ObjectName| *name.namespace == *r.namespace && *name.name == *r.name;
            if !recording.services.iter().any(known) {
                recording.services.push(ObjectName::new(r.namespace, r.name));
            }
        });
        let Some(service) = self.world.services.get(r.namespace, r.name) else {
            return Err(fault(
                InvalidReason::BackendNotFound,
                format!("Service {}/{} does not exist", r.namespace, r.name),
                "create the Service, or name one that exists",
            ));
        };
        let ports = service
            .spec
            .as_ref()
            .and_then(|s| s.ports.as_deref())
            .unwrap_or_default();
        let named = |p: &&ApiPort| match r.port {
            PortRef::Number(number) => p.port == i32::from(number),
            PortRef::Name(name) => p.name.as_deref().unwrap_or_default() == name,
        };
        let carried = |p: &&ApiPort| p.protocol.as_deref().unwrap_or("TCP") == carrier.transport();
        if let Some(port) = ports.iter().filter(named).find(carried) {
            let number = u16::try_from(port.port).ok().filter(|n| *n != 0).ok_or_else(|| {
                fault(
                    InvalidReason::BackendNotFound,
                    format!(
                        "port {} of Service {}/{} is no port number",
                        port.port, r.namespace, r.name
                    ),
                    "use a number from 1 to 65535",
                )
            })?;
            let port = ServicePort {
                name: port.name.clone().unwrap_or_default(),
                number,
                app_protocol: port.app_protocol.clone(),
            };
            return Ok((service, port));
        }
        // ExternalName is a CNAME: it needs no ports, and any port can be asked of the name it points to.
        if let PortRef::Number(number) = r.port
            && ports.is_empty()
            && external_name(service).is_some()
        {
            let port = ServicePort {
                name: String::new(),
                number,
                app_protocol: None,
            };
            return Ok((service, port));
        }
        let has: Vec<String> = ports
            .iter()
            .map(|p| {
                let protocol = p.protocol.as_deref().unwrap_or("TCP");
                match p.name.as_deref() {
                    Some(name) if !name.is_empty() => format!("{}/{protocol} ({name})", p.port),
                    _ => format!("{}/{protocol}", p.port),
                }
            })
            .collect();
        Err(fault(
            InvalidReason::BackendNotFound,
            format!(
                "Service {}/{} has no {} port {}; it has {}",
                r.namespace,
                r.name,
                carrier.transport(),
                r.port.describe(),
                if has.is_empty() {
                    "no ports".to_owned()
                } else {
                    has.join(", ")
                },
            ),
            "name one of spec.ports by its name or port (not targetPort)",
        ))
    }

    /// The backend that `service` is for `carrier`; added to the snapshot with its endpoints.
    pub fn service_backend(&mut self, service: ServiceRef<'_>, carrier: Carrier, tls: Option<&TlsChoice>) -> Resolved {
        let origin = Origin::new("Service", service.namespace, service.name);
        match self.usable_backend(service, carrier, tls) {
            Ok(backend) => {
                let id = backend.id.clone();
                self.add_backend(backend);
                Resolved { id, fault: None }
            }
            Err(fault) => {
                let mut what = format!("{}/{}:{}", service.namespace, service.name, service.port.describe());
                // An unusable policy, or one that is missing, says nothing about the port for other routes.
                if carrier != Carrier::Http {
                    what.push_str(&format!("/{carrier:?}").to_ascii_lowercase());
                }
                if let Some(tls) = tls {
                    what = format!("{what}+{}", tls.key);
                }
                self.invalid_backend(origin, &what, fault)
            }
        }
    }

    fn usable_backend(
        &mut self,
        r: ServiceRef<'_>,
        carrier: Carrier,
        tls: Option<&TlsChoice>,
    ) -> Result<Backend, BackendFault> {
        let (service, port) = self.find_port(r, carrier)?;
        let protocol = protocol(carrier, port.app_protocol.as_deref(), tls.is_some())?;
        if carrier == Carrier::Ingress && unknown_to_ingress(port.app_protocol.as_deref()) {
            let name = port.app_protocol.as_deref().unwrap_or_default();
            self.warning(
                &Origin::new("Service", r.namespace, r.name),
                "spec.ports[].appProtocol",
                format!("appProtocol {name} is not known; an Ingress speaks HTTP/1.1 to it"),
                "use http, kubernetes.io/h2c or kubernetes.io/ws, or leave appProtocol out",
            );
        }
        let external = external_name(service).map(|name| external_host(r, name)).transpose()?;
        let primary_v6 = primary_family_is_v6(service.spec.as_ref());
        let tls_name = tls.map(|t| t.key.as_str());
        let tls = match tls {
            None => None,
            Some(TlsChoice { tls: Ok(tls), .. }) => Some(tls.clone()),
            Some(TlsChoice { tls: Err(why), .. }) => {
                return Err(fault(
                    InvalidReason::TlsPolicyInvalid,
                    why.clone(),
                    "repair the BackendTLSPolicy; until then nothing is sent in plaintext",
                ));
            }
        };
        let target = match external {
            Some(name) => BackendTarget::Dns {
                name,
                port: port.number,
            },
            None => BackendTarget::Endpoints(self.endpoints(r, &port, carrier.transport(), primary_v6)),
        };
        Ok(Backend {
            id: backend_id(r, port.number, protocol, tls_name),
            origin: Origin::new("Service", r.namespace, r.name),
            target,
            protocol,
            tls,
        })
    }

    /// Adds a backend that fails its share of traffic. `what` names what was referenced, as in `namespace/service:port`.
    pub fn invalid_backend(&mut self, origin: Origin, what: &str, fault: BackendFault) -> Resolved {
        let id = BackendId::new(&format!("{what}!{:?}", fault.reason));
        self.add_backend(Backend {
            id: id.clone(),
            origin,
            target: BackendTarget::Invalid {
                reason: fault.reason,
                message: fault.message.clone(),
            },
            protocol: BackendProtocol::Http1,
            tls: None,
        });
        Resolved { id, fault: Some(fault) }
    }
}

fn backend_id(r: ServiceRef<'_>, port: u16, protocol: BackendProtocol, tls: Option<&str>) -> BackendId {
    let mut id = format!("{}/{}:{port}", r.namespace, r.name);
    id.push_str(match protocol {
        BackendProtocol::Http1 => "",
        BackendProtocol::Http2 => "/http2",
        BackendProtocol::Tcp => "/tcp",
        BackendProtocol::Udp => "/udp",
    });
    if let Some(tls) = tls {
        id.push('+');
        id.push_str(tls);
    }
    BackendId::new(&id)
}

/// How one speaks to a Service port.
///
/// GEP-1911: `kubernetes.io/h2c` is HTTP/2 with prior knowledge, `kubernetes.io/ws` WebSocket over HTTP/1.1,
/// `kubernetes.io/wss` the same over TLS; "if the protocol is not supported, the implementation MUST set ResolvedRefs to
/// False with reason UnsupportedProtocol". Of names registered with IANA, whose case says nothing (RFC 6335 §5.1), we know
/// `http`, `https`, `grpc` and the common `http2`, `h2c`, `ws`, `wss`. One that says TLS needs a policy that says whom to
/// trust. L4 takes any.
fn protocol(carrier: Carrier, app_protocol: Option<&str>, tls: bool) -> Result<BackendProtocol, BackendFault> {
    match carrier {
        Carrier::Tcp => return Ok(BackendProtocol::Tcp),
        Carrier::Udp => return Ok(BackendProtocol::Udp),
        Carrier::Http | Carrier::Grpc | Carrier::Ingress => {}
    }
    let unsupported = |message: String, fix| Err(fault(InvalidReason::UnsupportedProtocol, message, fix));
    let name = app_protocol.map(|name| {
        if name.contains('/') {
            name.to_owned()
        } else {
            name.to_ascii_lowercase()
        }
    });
    match name.as_deref() {
        None | Some("") if carrier == Carrier::Grpc => Ok(BackendProtocol::Http2),
        None | Some("") => Ok(BackendProtocol::Http1),
        Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Ok(BackendProtocol::Http2),
        Some(name @ ("https" | "kubernetes.io/wss" | "wss")) if !tls => unsupported(
            format!("appProtocol {name} asks for TLS, and nothing says which certificate authority to trust"),
            "add a BackendTLSPolicy for the Service, or serve plaintext",
        ),
        Some("https") if carrier == Carrier::Grpc => Ok(BackendProtocol::Http2),
        Some(name @ ("http" | "kubernetes.io/ws" | "ws" | "kubernetes.io/wss" | "wss")) if carrier == Carrier::Grpc => {
            unsupported(
                format!("appProtocol {name} is HTTP/1.1, and gRPC needs HTTP/2"),
                "set appProtocol to kubernetes.io/h2c, or leave it out",
            )
        }
        Some("http" | "https" | "kubernetes.io/ws" | "ws" | "kubernetes.io/wss" | "wss") => Ok(BackendProtocol::Http1),
        Some(_) if carrier == Carrier::Ingress => Ok(BackendProtocol::Http1),
        Some(_) => unsupported(
            format!("appProtocol {} is not known", app_protocol.unwrap_or_default()),
            "use http, kubernetes.io/h2c or kubernetes.io/ws, or leave appProtocol out",
        ),
    }
}

fn unknown_to_ingress(app_protocol: Option<&str>) -> bool {
    protocol(Carrier::Ingress, app_protocol, false).is_ok() && protocol(Carrier::Http, app_protocol, false).is_err()
}

/// `None` unless the Service is of type ExternalName.
fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    (spec.type_.as_deref() == Some("ExternalName")).then(|| spec.external_name.as_deref().unwrap_or_default())
}

/// Where an ExternalName Service points.
///
/// Allowed: it can reach no more than a pod of its namespace could. But the proxy stands on the node, where `localhost` and
/// addresses mean something else than in a pod: the node's own services, the cloud's metadata address. So those are refused;
/// Kubernetes too treats an IP address here as a name of digits that no DNS server resolves.
fn external_host(r: ServiceRef<'_>, name: &str) -> Result<Hostname, BackendFault> {
    let refused = |why: &str, fix| {
        Err(fault(
            InvalidReason::BackendNotFound,
            format!("externalName {name:?} of Service {}/{} {why}", r.namespace, r.name),
            fix,
        ))
    };
    let Ok(host) = Hostname::parse(name) else {
        return refused("is no host name", "set spec.externalName to a DNS name");
    };
    let text = host.as_str();
    // All-numeric last labels are what address parsers of many resolvers accept (`127.1`, `0x7f.1`).
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    if text.parse::<std::net::IpAddr>().is_ok() || numeric {
        return refused(
            "is an address",
            "use a Service without selector and an EndpointSlice with the address",
        );
    }
    if text == "localhost" || text.ends_with(".localhost") {
        return refused(
            "would be the node itself",
            "use a Service without selector and an EndpointSlice with the address",
        );
    }
    Ok(host)
}

fn primary_family_is_v6(spec: Option<&ServiceSpec>) -> bool {
    spec.and_then(|s| s.ip_families.as_ref())
        .and_then(|families| families.first())
        .is_some_and(|family| family == "IPv6")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `protocol` for each carrier of HTTP, in the order HTTPRoute, GRPCRoute, Ingress; `None` is refused.
    fn spoken(app_protocol: Option<&str>, tls: bool) -> [Option<BackendProtocol>; 3] {
        [Carrier::Http, Carrier::Grpc, Carrier::Ingress].map(|carrier| protocol(carrier, app_protocol, tls).ok())
    }

    #[test]
    fn app_protocol_decides_and_the_carrier_where_it_is_silent() {
        use BackendProtocol::{Http1, Http2};
        let (one, two) = (Some(Http1), Some(Http2));
        for tls in [false, true] {
            assert_eq!(spoken(None, tls), [one, two, one]);
            assert_eq!(spoken(Some(""), tls), [one, two, one]);
            assert_eq!(spoken(Some("kubernetes.io/h2c"), tls), [two, two, two]);
            assert_eq!(spoken(Some("grpc"), tls), [two, two, two]);
            assert_eq!(spoken(Some("kubernetes.io/ws"), tls), [one, None, one]);
            assert_eq!(spoken(Some("http"), tls), [one, None, one]);
            assert_eq!(spoken(Some("example.com/unknown"), tls), [None, None, one]);
        }
    }

    #[test]
    fn what_says_tls_needs_a_policy() {
        use BackendProtocol::{Http1, Http2};
        assert_eq!(spoken(Some("https"), false), [None; 3]);
        assert_eq!(spoken(Some("kubernetes.io/wss"), false), [None; 3]);
        assert_eq!(spoken(Some("https"), true), [Some(Http1), Some(Http2), Some(Http1)]);
        assert_eq!(
            spoken(Some("kubernetes.io/wss"), true),
            [Some(Http1), None, Some(Http1)]
        );
    }

    #[test]
    fn the_case_of_a_registered_name_says_nothing() {
        for tls in [false, true] {
            assert_eq!(spoken(Some("HTTPS"), tls), spoken(Some("https"), tls));
            assert_eq!(spoken(Some("Http"), tls), spoken(Some("http"), tls));
            assert_eq!(
                spoken(Some("Kubernetes.io/h2c"), tls),
                [None, None, Some(BackendProtocol::Http1)]
            );
        }
    }

    #[test]
    fn bytes_have_no_protocol() {
        for app_protocol in [None, Some("https"), Some("example.com/unknown")] {
            assert_eq!(protocol(Carrier::Tcp, app_protocol, false), Ok(BackendProtocol::Tcp));
            assert_eq!(protocol(Carrier::Udp, app_protocol, false), Ok(BackendProtocol::Udp));
        }
    }
}
