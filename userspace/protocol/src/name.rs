use std::{borrow::Borrow, fmt, sync::Arc};

use pierhead_model::{BackendId, BindKey, CertificateId, EndpointsId, FleetId, OwnedPrefix, RouteId, TrustId};

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    Bind,
    Route,
    Backend,
    Endpoints,
    Certificate,
    Trust,
    Owned,
    Fleet,
}

impl ResourceKind {
    pub const ALL: [Self; 8] = [
        Self::Bind,
        Self::Route,
        Self::Backend,
        Self::Endpoints,
        Self::Certificate,
        Self::Trust,
        Self::Owned,
        Self::Fleet,
    ];

    /// What a resource's name starts with, before the slash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Route => "route",
            Self::Backend => "backend",
            Self::Endpoints => "endpoints",
            Self::Certificate => "certificate",
            Self::Trust => "trust",
            Self::Owned => "owned",
            Self::Fleet => "fleet",
        }
    }
}

/// Which resource: the key of one of the snapshot's maps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceId {
    Bind(BindKey),
    Route(RouteId),
    Backend(BackendId),
    Endpoints(EndpointsId),
    Certificate(CertificateId),
    Trust(TrustId),
    Owned(OwnedPrefix),
    Fleet(FleetId),
}

impl ResourceId {
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Bind(_) => ResourceKind::Bind,
            Self::Route(_) => ResourceKind::Route,
            Self::Backend(_) => ResourceKind::Backend,
            Self::Endpoints(_) => ResourceKind::Endpoints,
            Self::Certificate(_) => ResourceKind::Certificate,
            Self::Trust(_) => ResourceKind::Trust,
            Self::Owned(_) => ResourceKind::Owned,
            Self::Fleet(_) => ResourceKind::Fleet,
        }
    }

    pub fn name(&self) -> ResourceName {
        ResourceName(self.to_string().into())
    }
}

impl fmt::Display for ResourceId {
    /// `bind/tcp 10.0.0.1:80`, `route/HTTPRoute default/shop`, `backend/default/shop:80`, `owned/10.0.0.1/32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())?;
        f.write_str("/")?;
        match self {
            Self::Bind(key) => key.fmt(f),
            Self::Route(id) => id.fmt(f),
            Self::Backend(id) => id.fmt(f),
            Self::Endpoints(id) => id.fmt(f),
            Self::Certificate(id) => id.fmt(f),
            Self::Trust(id) => id.fmt(f),
            Self::Owned(OwnedPrefix(net)) => net.fmt(f),
            Self::Fleet(id) => id.fmt(f),
        }
    }
}

/// The name under which a resource travels: [`ResourceId`] as text. What arrives as a name may name nothing we know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `None`: a kind that this version does not know.
    pub fn kind(&self) -> Option<ResourceKind> {
        let (kind, _) = self.0.split_once('/')?;
        ResourceKind::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

/// So that a map of names can be asked with a `&str`; both order alike.
impl Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for ResourceName {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
