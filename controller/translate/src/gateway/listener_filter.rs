//! Filters of listeners: what every request meets before a route is looked for (GEP-5224).
//!
//! A filter that cannot be carried out is never skipped: its listener answers errors, or is not accepted.

use pierhead_gateway_api::{Listener, ListenerFilter, ListenerFilterType, ProtocolType};
use pierhead_model::Filter;

use super::{
    backend::Backends,
    condition::{Fault, Verdict, add, fault},
    filter,
    listener::Gateways,
    policy::Policies,
};
use crate::{Builder, border::Carrier};

fn filters(spec: &Listener) -> &[ListenerFilter] {
    spec.filters.as_ref().map_or(&[], |filters| &filters.requests)
}

/// What can be said without looking for other objects. The schema of Gateway says some of it, that of ListenerSet less.
pub(super) fn check(spec: &Listener) -> Verdict {
    const INVALID: &str = "InvalidListenerFilter";
    let filters = filters(spec);
    if !filters.is_empty() && !matches!(spec.protocol, ProtocolType::Http | ProtocolType::Https) {
        return Err(fault(
            INVALID,
            format!("filters need protocol HTTP or HTTPS, not {}", spec.protocol),
            "remove filters from the listener",
        ));
    }
    for (index, filter) in filters.iter().enumerate() {
        let place = format!("filters.requests[{index}]");
        let missing = || {
            fault(
                INVALID,
                format!("{place}: a filter of type {} has no content", filter.kind),
                "write the field that type names",
            )
        };
        match &filter.kind {
            ListenerFilterType::ExternalAuth => {
                let spec = filter.external_auth.as_ref().ok_or_else(missing)?;
                filter::external_auth_protocol(spec)
                    .map_err(|why| fault(INVALID, format!("{place}: {}", why.message), why.fix))?;
            }
            ListenerFilterType::ExtensionRef => {
                filter.extension_ref.as_ref().ok_or_else(missing)?;
            }
            ListenerFilterType::Unknown(kind) => {
                return Err(fault(
                    "UnsupportedValue",
                    format!("{place}: filters of type {kind} are not supported, and may not be skipped"),
                    "remove the filter, or use one that this version knows",
                ));
            }
        }
    }
    Ok(())
}

/// Resolves what the filters refer to.
pub(super) fn resolve<'w>(builder: &mut Builder<'w>, gateways: &mut Gateways<'w>, policies: &mut Policies<'w>) {
    for listener in &mut gateways.listeners {
        let specs = filters(listener.spec);
        if specs.is_empty() || listener.accepted.is_err() {
            continue;
        }
        let certificate = gateways.gateways[listener.gateway].client_certificate.as_ref();
        let mut backends = Backends {
            builder,
            policies,
            origin: listener.id.owner.clone(),
            carrier: Carrier::Http,
            tls: true,
            gateways: vec![listener.gateway],
            client_certificate: certificate.and_then(|c| c.as_ref().ok()).cloned(),
            refs: Ok(()),
            used_tls: false,
        };
        let mut refs = Ok(());
        for (index, spec) in specs.iter().enumerate() {
            let field = format!("{}.filters.requests[{index}]", listener.field);
            let (filter, why) = one(&mut backends, spec, &field);
            if let Some(why) = why {
                let message = format!("filters.requests[{index}]: {}", why.message);
                add(&mut refs, fault(why.reason, message, why.fix));
            }
            listener.filters.push(filter);
        }
        if let Err(fault) = refs {
            add(&mut listener.refs, fault);
        }
    }
}

/// One filter, and why its reference does not resolve.
fn one(backends: &mut Backends<'_, '_>, spec: &ListenerFilter, field: &str) -> (Filter, Option<Fault>) {
    const INVALID: &str = "InvalidListenerFilterRef";
    let unsupported = |message: &str| Filter::Unsupported { what: message.into() };
    if let Some(auth) = &spec.external_auth {
        return match filter::external_auth(backends, auth, &format!("{field}.externalAuth")) {
            Ok(filter) => {
                let why = std::mem::replace(&mut backends.refs, Ok(())).err().map(|why| {
                    // RefNotPermitted is a reason of its own here too.
                    let reason = if why.reason == "RefNotPermitted" {
                        why.reason
                    } else {
                        INVALID
                    };
                    Fault { reason, ..why }
                });
                (filter, why)
            }
            // `check` has seen that already.
            Err(why) => (unsupported(&why.message), Some(why)),
        };
    }
    let name = spec.extension_ref.as_ref();
    let why = fault(
        INVALID,
        format!(
            "extensionRef to {} {} is not known",
            name.map_or("an object of an unknown kind", |r| r.kind.as_str()),
            name.map_or("", |r| r.name.as_str())
        ),
        "remove the filter: until then the listener answers 500",
    );
    (unsupported(&why.message), Some(why))
}
