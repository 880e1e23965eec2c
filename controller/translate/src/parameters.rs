//! GatewayParameters: from a reference to its meaning.

use std::sync::Arc;

use pierhead_api::gateway_parameters::Addresses;

use pierhead_model::{ClientAddress, ForwardedFor};

use crate::Builder;

/// Group and kind of the only parameters there are.
pub(crate) fn is_known(group: &str, kind: &str) -> bool {
    (group, kind) == (pierhead_api::GROUP, "GatewayParameters")
}

impl Builder<'_> {
    /// What the parameters of that name mean.
    ///
    /// # Errors
    /// Why they mean nothing, for the one who refers to them.
    pub(crate) fn parameters(&self, namespace: &str, name: &str) -> Result<Arc<Addresses>, String> {
        let Some(parameters) = self.world.gateway_parameters.get(namespace, name) else {
            return Err(format!("GatewayParameters {namespace}/{name} does not exist"));
        };
        let read = parameters
            .spec
            .client_address()
            .and_then(|_| parameters.spec.addresses());
        match read {
            Ok(addresses) => Ok(addresses.into()),
            Err(why) => Err(format!("GatewayParameters {namespace}/{name}: {why}")),
        }
    }

    /// Who is believed about clients' addresses by the parameters of that name: nobody where they mean nothing, which
    /// [`Builder::parameters`] says.
    pub(crate) fn client_address(&self, namespace: &str, name: &str) -> ClientAddress {
        let parameters = self.world.gateway_parameters.get(namespace, name);
        let Some(Ok(read)) = parameters.map(|parameters| parameters.spec.client_address()) else {
            return ClientAddress::default();
        };
        ClientAddress {
            proxy_protocol: read.proxy_protocol,
            forwarded_for: read.forwarded_for.map(|read| ForwardedFor {
                trusted: read.trusted,
                hops: read.hops,
            }),
        }
    }
}
