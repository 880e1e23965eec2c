//! GatewayParameters: from a reference to its meaning.

use std::sync::Arc;

use pierhead_api::gateway_parameters::Addresses;

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
        match parameters.spec.addresses() {
            Ok(addresses) => Ok(addresses.into()),
            Err(why) => Err(format!("GatewayParameters {namespace}/{name}: {why}")),
        }
    }
}
