//! The maps of a snapshot, seen alike.

use std::sync::Arc;

use bytes::Bytes;
use pierhead_model::{
    Backend, BackendId, Bind, BindKey, Certificate, CertificateId, Endpoints, EndpointsId, Fleet, FleetId, HttpRoute,
    Map, OwnedPrefix, Ownership, RouteId, Snapshot, TrustAnchors, TrustId,
};

use crate::{Malformed, ResourceId, wire};

/// A value of one of the snapshot's maps.
pub(crate) trait Section: Clone + PartialEq {
    type Key: Clone + Ord;

    fn id(key: &Self::Key) -> ResourceId;

    /// Whether both are known to be equal without looking closely.
    fn is_same(&self, other: &Self) -> bool;

    fn encode(&self, key: &Self::Key) -> Bytes;

    fn decode(body: Bytes) -> Result<(Self::Key, Self), Malformed>;

    fn map(snapshot: &Snapshot) -> &Map<Self::Key, Self>;

    fn map_mut(snapshot: &mut Snapshot) -> &mut Map<Self::Key, Self>;
}

macro_rules! sections {
    ($($field:ident: $key:ident => $value:ident, $kind:ident, $own:ident;)*) => {$(
        impl Section for Arc<$value> {
            type Key = $key;

            fn id(key: &$key) -> ResourceId {
                ResourceId::$kind(key.clone())
            }

            fn is_same(&self, other: &Self) -> bool {
                Self::ptr_eq(self, other)
            }

            fn encode(&self, _key: &$key) -> Bytes {
                wire::encode::<$value>(self)
            }

            fn decode(body: Bytes) -> Result<($key, Self), Malformed> {
                let value: $value = wire::decode(body)?;
                Ok((value.$own.clone(), value.into()))
            }

            fn map(snapshot: &Snapshot) -> &Map<$key, Self> {
                &snapshot.$field
            }

            fn map_mut(snapshot: &mut Snapshot) -> &mut Map<$key, Self> {
                &mut snapshot.$field
            }
        }
    )*};
}

sections! {
    binds: BindKey => Bind, Bind, key;
    routes: RouteId => HttpRoute, Route, id;
    backends: BackendId => Backend, Backend, id;
    endpoints: EndpointsId => Endpoints, Endpoints, id;
    certificates: CertificateId => Certificate, Certificate, id;
    trust: TrustId => TrustAnchors, Trust, id;
    fleet: FleetId => Fleet, Fleet, id;
}

impl Section for Ownership {
    type Key = OwnedPrefix;

    fn id(key: &OwnedPrefix) -> ResourceId {
        ResourceId::Owned(*key)
    }

    fn is_same(&self, other: &Self) -> bool {
        self == other
    }

    fn encode(&self, key: &OwnedPrefix) -> Bytes {
        wire::encode(&(*key, self.clone()))
    }

    fn decode(body: Bytes) -> Result<(OwnedPrefix, Self), Malformed> {
        wire::decode(body)
    }

    fn map(snapshot: &Snapshot) -> &Map<OwnedPrefix, Self> {
        &snapshot.owned
    }

    fn map_mut(snapshot: &mut Snapshot) -> &mut Map<OwnedPrefix, Self> {
        &mut snapshot.owned
    }
}
