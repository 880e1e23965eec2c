//! Which Ingresses are ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use pierhead_api::gateway_parameters::Addresses;
use pierhead_model::{ClientAddress, Origin};

use crate::{Builder, Settings, parameters, world};

/// The way of before `spec.ingressClassName` to name a class.
const LEGACY: &str = "kubernetes.io/ingress.class";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The classes of the world, as far as ownership needs them.
pub(super) struct Classes {
    all: BTreeSet<String>,
    /// With what is known of their addresses.
    ours: BTreeMap<String, Place>,
    /// The default class to inject, if that is our duty.
    default: Option<String>,
}

/// Where Ingresses of a class are served.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// On the nodes' addresses, together with those of all other classes that say nothing else.
    Nodes,
    /// On addresses of the class's own.
    Own(Arc<Addresses>),
    /// Nowhere: its parameters cannot be followed, for this reason. To serve it elsewhere than asked may show it to those who
    /// are not to see it.
    Nowhere(String),
}

/// What an Ingress says about its class.
enum Named<'a> {
    Field(&'a str),
    Annotation(&'a str),
    Nothing,
}

fn named(ingress: &Ingress) -> Named<'_> {
    // "`.spec.ingressClassName` behavior has precedence"; validation forbids creating both, an update may leave both.
    if let Some(class) = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref()) {
        return Named::Field(class);
    }
    match ingress.metadata.annotations.as_ref().and_then(|a| a.get(LEGACY)) {
        Some(class) => Named::Annotation(class),
        None => Named::Nothing,
    }
}

impl Classes {
    pub(super) fn new(builder: &mut Builder<'_>) -> Self {
        let settings = builder.settings;
        let mut classes = Self {
            all: BTreeSet::new(),
            ours: BTreeMap::new(),
            default: None,
        };
        for class in builder.world.ingress_classes.iter() {
            let name = world::name(&class.metadata).to_owned();
            let controller = class.spec.as_ref().and_then(|s| s.controller.as_deref());
            if controller == Some(&settings.ingress_controller) {
                let place = place(builder, class);
                classes.ours.insert(name.clone(), place);
            }
            classes.all.insert(name);
        }
        let written_default = default_class(builder);
        let mut implied_default = None;
        if let Some(implied) = &settings.implied_class
            && classes.all.insert(implied.as_ref().to_owned())
        {
            classes.ours.insert(implied.as_ref().to_owned(), Place::Nodes);
            implied_default = Some(implied.as_ref().to_owned());
        }
        if settings.inject_default_class {
            classes.default = written_default.or(implied_default);
        }
        classes
    }

    /// The class of `ingress` if that one is ours, and where it is served. A class that does not exist is waited for. An
    /// Ingress of ours without any class has the empty one.
    pub(super) fn of(&self, ingress: &Ingress, builder: &mut Builder<'_>) -> Option<(String, Place)> {
        let classless = |ours: bool| ours.then(|| (String::new(), Place::Nodes));
        let settings: &Settings = builder.settings;
        let class = match named(ingress) {
            Named::Field(class) => class,
            Named::Annotation("") => return classless(settings.watch_ingress_without_class),
            Named::Annotation(class) if *class == *settings.ingress_class_annotation && !self.all.contains(class) => {
                return classless(true);
            }
            Named::Annotation(class) => class,
            Named::Nothing => match &self.default {
                Some(class) => class,
                None => {
                    if settings.inject_default_class && !settings.watch_ingress_without_class {
                        let origin = world::origin("Ingress", &ingress.metadata);
                        builder.warning(
                            &origin,
                            "spec.ingressClassName",
                            "names no IngressClass and none is the default: it is not served",
                            "set spec.ingressClassName",
                        );
                    }
                    return classless(settings.watch_ingress_without_class);
                }
            },
        };
        if !self.all.contains(class) {
            builder.warning(
                &world::origin("Ingress", &ingress.metadata),
                "spec.ingressClassName",
                format!("there is no IngressClass {class}: the Ingress waits for it"),
                "create the IngressClass, or name one that exists",
            );
        }
        Some((class.to_owned(), self.ours.get(class)?.clone()))
    }
}

/// As the API server's admission does: of several defaults the newest, then the first by name.
fn default_class(builder: &Builder<'_>) -> Option<String> {
    let is_default = |class: &&Arc<IngressClass>| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(DEFAULT)).is_some_and(|v| v == "true")
    };
    builder
        .world
        .ingress_classes
        .iter()
        .filter(is_default)
        .max_by(|a, b| {
            let (a, b) = (world::age(&a.metadata), world::age(&b.metadata));
            a.created.cmp(&b.created).then_with(|| b.name.cmp(&a.name))
        })
        .map(|class| world::name(&class.metadata).to_owned())
}

/// What the parameters of a class say about clients; `place` has said what is wrong with them.
pub(super) fn client_address(builder: &Builder<'_>, class: &str) -> ClientAddress {
    let class = builder.world.ingress_classes.get("", class);
    let parameters = class.and_then(|class| class.spec.as_ref()?.parameters.as_ref());
    match parameters {
        Some(p) if parameters::is_known(p.api_group.as_deref().unwrap_or("core"), &p.kind) => {
            let namespace = p.namespace.as_deref().unwrap_or(&builder.settings.namespace);
            builder.client_address(namespace, &p.name)
        }
        _ => ClientAddress::default(),
    }
}

/// What `spec.parameters` says about addresses. Parameters are optional by specification; those of a kind that is not ours
/// change nothing, loudly.
fn place(builder: &mut Builder<'_>, class: &IngressClass) -> Place {
    let Some(parameters) = class.spec.as_ref().and_then(|s| s.parameters.as_ref()) else {
        return Place::Nodes;
    };
    let origin = Origin::new("IngressClass", "", world::name(&class.metadata));
    let group = parameters.api_group.as_deref().unwrap_or("core");
    let scope = parameters.scope.as_deref().unwrap_or("Cluster");
    let fault = match (scope, &parameters.namespace) {
        ("Namespace", Some(_)) | ("Cluster", None) => None,
        ("Namespace", None) => Some((
            "spec.parameters.namespace",
            "scope Namespace needs a namespace".to_owned(),
            "set spec.parameters.namespace, or scope: Cluster",
        )),
        ("Cluster", Some(_)) => Some((
            "spec.parameters.namespace",
            "scope Cluster allows no namespace".to_owned(),
            "remove spec.parameters.namespace, or set scope: Namespace",
        )),
        (scope, _) => Some((
            "spec.parameters.scope",
            format!("scope {scope} is not known"),
            "use Cluster or Namespace",
        )),
    };
    if !parameters::is_known(group, &parameters.kind) {
        let (field, message, fix) = fault.unwrap_or_else(|| {
            let namespace = parameters.namespace.as_ref().map(|n| format!(" in namespace {n}"));
            let message = format!(
                "parameters of kind {group}/{}{} are not known and change nothing",
                parameters.kind,
                namespace.unwrap_or_default()
            );
            let fix = "name a GatewayParameters of group pierhead.dev, or remove spec.parameters";
            ("spec.parameters", message, fix)
        });
        builder.warning(&origin, field, message, fix);
        return Place::Nodes;
    }
    if let Some((field, message, fix)) = fault {
        builder.error(&origin, field, message.clone(), fix);
        return Place::Nowhere(message);
    }
    // GatewayParameters are namespaced: whoever means one with the scope of the cluster means the operator's own.
    let namespace = parameters.namespace.as_deref().unwrap_or(&builder.settings.namespace);
    match builder.parameters(namespace, &parameters.name) {
        Ok(addresses) if *addresses == Addresses::Node => Place::Nodes,
        Ok(addresses) => Place::Own(addresses),
        Err(why) => {
            builder.error(
                &origin,
                "spec.parameters",
                why.clone(),
                "create or repair the GatewayParameters",
            );
            Place::Nowhere(why)
        }
    }
}
