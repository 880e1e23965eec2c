//! What all route kinds have in common.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::{GRPCRoute, HTTPRoute, ParentReference, TCPRoute, TLSRoute, UDPRoute};

/// A route of any kind: enough to attach it and to write its status.
pub trait Route {
    const KIND: &'static str;

    fn metadata(&self) -> &ObjectMeta;
    fn parent_refs(&self) -> &[ParentReference];
    /// As written; empty for kinds without host names.
    fn hostnames(&self) -> &[String];
    /// As read.
    fn status(&self) -> Option<&Value>;
}

macro_rules! route {
    ($($name:ident $hostnames:expr;)*) => {$(
        impl Route for $name {
            const KIND: &'static str = stringify!($name);

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn parent_refs(&self) -> &[ParentReference] {
                &self.spec.parent_refs
            }

            fn hostnames(&self) -> &[String] {
                let hostnames: fn(&Self) -> &[String] = $hostnames;
                hostnames(self)
            }

            fn status(&self) -> Option<&Value> {
                self.status.as_ref()
            }
        }
    )*};
}

route! {
    HTTPRoute |r| &r.spec.hostnames;
    GRPCRoute |r| &r.spec.hostnames;
    TLSRoute |r| &r.spec.hostnames;
    TCPRoute |_| &[];
    UDPRoute |_| &[];
}
