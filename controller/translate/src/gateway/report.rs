//! Statuses: what is written into routes, Gateways and ListenerSets.

use std::collections::BTreeSet;

use pierhead_gateway_api::{
    Condition, GatewayStatus, ListenerSetStatus, ListenerStatus, Route, RouteParentStatus, RouteStatus,
};
use serde_json::Value;

use super::{
    address,
    attach::Attached,
    condition::{Fault, PENDING, Verdict, alarm, condition, fault},
    listener::{GatewayState, Gateways, ListenerState, Owner, SetState},
    policy::has_entry,
};
use crate::{Builder, ObjectName, origin};

/// What became of a route itself, apart from its parents.
pub(super) struct Outcome {
    /// It cannot be used at all.
    pub(super) rejected: Option<Fault>,
    /// Number of rules.
    pub(super) rules: usize,
    /// Rules that were dropped or only answer errors.
    pub(super) faults: Vec<(usize, Fault)>,
    pub(super) refs: Verdict,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            rejected: None,
            rules: 0,
            faults: Vec::new(),
            refs: Ok(()),
        }
    }
}

impl Outcome {
    /// Why the route as a whole is not accepted.
    fn rejection(&self) -> Option<&Fault> {
        let all = !self.faults.is_empty() && self.faults.len() == self.rules;
        self.rejected
            .as_ref()
            .or_else(|| all.then(|| self.faults.first().map(|(_, f)| f)).flatten())
    }

    /// "The message starts with `Dropped Rule` when bad rules were removed."
    fn partial(&self) -> Option<Fault> {
        let (index, first) = self.faults.first().filter(|_| self.rejection().is_none())?;
        let others = match self.faults.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Some(fault(
            "UnsupportedValue",
            format!("Dropped Rule {index}{others}: {}", first.message),
            first.fix,
        ))
    }
}

/// The status of a route that has parents of ours; counts it where it is attached.
pub(super) fn route<R: Route>(
    builder: &mut Builder<'_>,
    gateways: &mut Gateways<'_>,
    route: &R,
    attached: &[Attached<'_>],
    outcome: &Outcome,
) -> RouteStatus {
    let origin = origin(R::KIND, route.metadata());
    let generation = route.metadata().generation;
    let mut parents = Vec::with_capacity(attached.len());
    let mut counted = BTreeSet::new();
    for parent in attached {
        let accepted = match (&parent.landings, outcome.rejection()) {
            (Err(fault), _) => {
                fault.report(builder, &origin, "spec.parentRefs");
                Err(fault)
            }
            (_, Some(fault)) => Err(fault),
            (Ok(landings), None) => {
                counted.extend(landings.iter().map(|l| l.listener));
                Ok("Accepted")
            }
        };
        let mut conditions = vec![
            condition("Accepted", accepted, generation),
            condition(
                "ResolvedRefs",
                outcome.refs.as_ref().map(|()| "ResolvedRefs"),
                generation,
            ),
        ];
        if let (Ok(_), Some(partial)) = (accepted, outcome.partial()) {
            conditions.push(alarm("PartiallyInvalid", &partial, generation));
        }
        parents.push(RouteParentStatus {
            parent_ref: parent.reference.clone(),
            controller_name: builder.settings.gateway_controller.to_string(),
            conditions,
        });
    }
    let noted = builder.note(|recording| recording.listeners.extend(&counted));
    if noted.is_none() {
        for listener in counted {
            gateways.listeners[listener].attached += 1;
        }
    }
    RouteStatus { parents }
}

/// The status of a route without parents of ours: none, unless entries of ours are to be taken out.
pub(super) fn released(builder: &Builder<'_>, present: Option<&Value>) -> Option<RouteStatus> {
    has_entry(present, "parents", &builder.settings.gateway_controller).then(RouteStatus::default)
}

/// Whether a listener is served, or why not.
fn programmed(gateway: &GatewayState<'_>, listener: &ListenerState<'_>) -> Verdict {
    if let Some(conflict) = &listener.conflicted {
        return Err(conflict.clone());
    }
    let invalid = |why: &Fault| fault("Invalid", why.message.clone(), why.fix);
    if let Err(why) = &listener.accepted {
        return Err(invalid(why));
    }
    if !listener.usable {
        let why = listener.refs.as_ref().err().cloned();
        return Err(why
            .as_ref()
            .map_or_else(|| fault("Invalid", "no certificate is usable", ""), invalid));
    }
    if listener.kinds.is_empty() {
        return Err(fault("Invalid", "no route can be attached", ""));
    }
    match (&gateway.accepted, &gateway.addressed) {
        (Ok(_), Ok(())) => Ok(()),
        (Err(why), _) if why.reason == PENDING => Err(why.clone()),
        (Err(why), _) => Err(invalid(why)),
        // Part of the addresses may be served all the same; the Gateway says which are not.
        (_, Err(_)) if !gateway.assigned.shown.is_empty() => Ok(()),
        (_, Err(why)) => Err(fault(PENDING, why.message.clone(), why.fix)),
    }
}

fn listener_status(
    gateway: &GatewayState<'_>,
    listener: &ListenerState<'_>,
    generation: Option<i64>,
) -> ListenerStatus {
    let accepted = match &listener.conflicted {
        Some(conflict) => Err(conflict),
        None => listener.accepted.as_ref(),
    };
    let programmed = programmed(gateway, listener);
    let mut conditions = vec![condition("Accepted", accepted.map(|()| "Accepted"), generation)];
    if let Some(conflict) = &listener.conflicted {
        conditions.push(alarm("Conflicted", conflict, generation));
    }
    if let Some(overlap) = &listener.overlapping {
        conditions.push(alarm("OverlappingTLSConfig", overlap, generation));
    }
    conditions.push(condition(
        "Programmed",
        programmed.as_ref().map(|()| "Programmed"),
        generation,
    ));
    conditions.push(condition(
        "ResolvedRefs",
        listener.refs.as_ref().map(|()| "ResolvedRefs"),
        generation,
    ));
    ListenerStatus {
        name: listener.spec.name.clone(),
        supported_kinds: listener.kinds.clone(),
        attached_routes: listener.attached,
        conditions,
    }
}

/// Names of listeners that are not valid in themselves, for a message. What their Gateway lacks (an address) is not
/// their fault.
fn invalid_names(listeners: &[&ListenerState<'_>]) -> Vec<String> {
    listeners
        .iter()
        .filter(|l| !l.stands() || !l.usable || l.refs.is_err())
        .map(|l| l.spec.name.clone())
        .collect()
}

fn not_valid(names: &[String]) -> Fault {
    fault(
        "ListenersNotValid",
        format!("listeners that are not valid: {}", names.join(", ")),
        "see the conditions of the listeners",
    )
}

/// Writes the statuses of all Gateways and ListenerSets.
pub(super) fn gateways(builder: &mut Builder<'_>, all: &Gateways<'_>) {
    let mut accepted_sets = vec![0; all.gateways.len()];
    for (index, set) in all.sets.iter().enumerate() {
        let (status, accepted) = listener_set(all, index, set);
        accepted_sets[set.gateway] += u32::from(accepted);
        let name = ObjectName::of(&set.object.metadata);
        builder.statuses.listener_sets.insert(name, status);
        if let Err(fault) = &set.allowed {
            fault.report(builder, &set.origin, "spec.parentRef");
        }
    }
    for (index, gateway) in all.gateways.iter().enumerate() {
        let status = gateway_status(all, index, gateway, accepted_sets[index]);
        builder.statuses.gateways.insert(gateway.name(), status);
        problems(builder, gateway);
    }
    for listener in &all.listeners {
        let origin = match listener.owner {
            Owner::Gateway(index) => &all.gateways[index].origin,
            Owner::Set(index) => &all.sets[index].origin,
        };
        let faults = [
            listener.conflicted.as_ref(),
            listener.accepted.as_ref().err(),
            listener.refs.as_ref().err(),
        ];
        for fault in faults.into_iter().flatten() {
            fault.report(builder, origin, listener.field.as_str());
        }
    }
}

fn problems(builder: &mut Builder<'_>, gateway: &GatewayState<'_>) {
    let origin = &gateway.origin;
    if let Err(fault) = &gateway.accepted {
        fault.report(builder, origin, "spec");
    }
    address::report(builder, gateway);
    if let Some(Err(fault)) = &gateway.client_certificate {
        fault.report(builder, origin, "spec.tls.backend.clientCertificateRef");
    }
    if gateway.insecure {
        builder.warning(
            origin,
            "spec.tls.frontend",
            "clients without a valid certificate are let in (AllowInsecureFallback)",
            "use AllowValidOnly",
        );
    }
}

fn gateway_status(all: &Gateways<'_>, index: usize, gateway: &GatewayState<'_>, sets: u32) -> GatewayStatus {
    let generation = gateway.object.metadata.generation;
    let own: Vec<&ListenerState<'_>> = all.of_owner(Owner::Gateway(index)).map(|(_, l)| l).collect();
    let names = invalid_names(&own);
    let any_accepted = all.of_gateway(index).any(ListenerState::stands);
    let any_programmed = all.of_gateway(index).any(|l| programmed(gateway, l).is_ok());

    let mut conditions = Vec::new();
    let none = not_valid(&names);
    let accepted = match &gateway.accepted {
        Err(fault) => condition("Accepted", Err(fault), generation),
        Ok(_) if !any_accepted => condition("Accepted", Err(&none), generation),
        // It is served all the same; what its Service was to carry is nowhere.
        Ok(_) if names.is_empty() => Condition {
            message: gateway
                .serviceless
                .as_ref()
                .map(|why| why.message.clone())
                .unwrap_or_default(),
            ..condition("Accepted", Ok("Accepted"), generation)
        },
        // "MUST set ListenersNotValid whether or not they accept the Gateway".
        Ok(_) => Condition {
            message: none.message.clone(),
            ..condition("Accepted", Ok("ListenersNotValid"), generation)
        },
    };
    conditions.push(accepted);
    conditions.extend(address::condition_of(gateway, generation));
    if gateway.insecure {
        let why = fault(
            "ConfigurationChanged",
            "clients without a valid certificate are let in (AllowInsecureFallback)",
            "",
        );
        conditions.push(alarm("InsecureFrontendValidationMode", &why, generation));
    }
    let programmed = match (&gateway.accepted, &gateway.addressed) {
        (Err(why), _) if why.reason == PENDING => Err(why.clone()),
        (Err(why), _) => Err(fault("Invalid", why.message.clone(), why.fix)),
        (Ok(_), Err(why)) => Err(why.clone()),
        (Ok(_), Ok(())) if any_programmed => Ok(()),
        (Ok(_), Ok(())) => Err(fault("Invalid", none.message.clone(), none.fix)),
    };
    conditions.push(condition(
        "Programmed",
        programmed.as_ref().map(|()| "Programmed"),
        generation,
    ));
    let refs = match &gateway.client_certificate {
        Some(Err(fault)) => Err(fault.clone()),
        _ if own.iter().any(|l| l.refs.is_err()) => Err(fault(
            "ListenersNotResolved",
            "some listeners have references that do not resolve",
            "see the conditions of the listeners",
        )),
        _ => Ok(()),
    };
    conditions.push(condition(
        "ResolvedRefs",
        refs.as_ref().map(|()| "ResolvedRefs"),
        generation,
    ));
    GatewayStatus {
        addresses: address::shown(gateway),
        conditions,
        listeners: own.iter().map(|l| listener_status(gateway, l, generation)).collect(),
        attached_listener_sets: Some(sets),
    }
}

fn listener_set(all: &Gateways<'_>, index: usize, set: &SetState<'_>) -> (ListenerSetStatus, bool) {
    let generation = set.object.metadata.generation;
    let gateway = &all.gateways[set.gateway];
    let own: Vec<&ListenerState<'_>> = all.of_owner(Owner::Set(index)).map(|(_, l)| l).collect();
    let good = |l: &&ListenerState<'_>| l.stands() && l.usable;
    let names = invalid_names(&own);
    let verdict = match &set.allowed {
        Err(fault) => Err(fault.clone()),
        Ok(()) if !own.iter().any(good) => Err(not_valid(&names)),
        Ok(()) => Ok(()),
    };
    let programmed = match &verdict {
        Err(fault) => Err(fault.clone()),
        Ok(()) if own.iter().any(|l| programmed(gateway, l).is_ok()) => Ok(()),
        Ok(()) => Err(fault(
            PENDING,
            format!("{} is not programmed", gateway.origin),
            "see the conditions of the Gateway",
        )),
    };
    let accepted = match &verdict {
        Ok(()) if !names.is_empty() => Condition {
            message: not_valid(&names).message,
            ..condition("Accepted", Ok("ListenersNotValid"), generation)
        },
        other => condition("Accepted", other.as_ref().map(|()| "Accepted"), generation),
    };
    let status = ListenerSetStatus {
        conditions: vec![
            accepted,
            condition("Programmed", programmed.as_ref().map(|()| "Programmed"), generation),
        ],
        listeners: own.iter().map(|l| listener_status(gateway, l, generation)).collect(),
    };
    (status, verdict.is_ok())
}
