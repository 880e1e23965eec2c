//! Which Ingresses are ours.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use pierhead_model::Origin;

use crate::{Builder, Settings, world};

/// The way of before `spec.ingressClassName` to name a class.
const LEGACY: &str = "kubernetes.io/ingress.class";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The classes of the world, as far as ownership needs them.
pub(super) struct Classes {
    all: BTreeSet<String>,
    ours: BTreeSet<String>,
    /// The default class to inject, if that is our duty.
    default: Option<String>,
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
            ours: BTreeSet::new(),
            default: None,
        };
        for class in builder.world.ingress_classes.iter() {
            let name = world::name(&class.metadata).to_owned();
            let controller = class.spec.as_ref().and_then(|s| s.controller.as_deref());
            if controller == Some(&settings.ingress_controller) {
                check_parameters(builder, class);
                classes.ours.insert(name.clone());
            }
            classes.all.insert(name);
        }
        let written_default = default_class(builder);
        let mut implied_default = None;
        if let Some(implied) = &settings.implied_class
            && classes.all.insert(implied.as_ref().to_owned())
        {
            classes.ours.insert(implied.as_ref().to_owned());
            implied_default = Some(implied.as_ref().to_owned());
        }
        if settings.inject_default_class {
            classes.default = written_default.or(implied_default);
        }
        classes
    }

    /// Whether `ingress` is ours. A class that does not exist is waited for.
    pub(super) fn owns(&self, ingress: &Ingress, builder: &mut Builder<'_>) -> bool {
        let settings: &Settings = builder.settings;
        let class = match named(ingress) {
            Named::Field(class) => class,
            Named::Annotation("") => return settings.watch_ingress_without_class,
            Named::Annotation(class) if *class == *settings.ingress_class_annotation => return true,
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
                    return settings.watch_ingress_without_class;
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
        self.ours.contains(class)
    }
}

/// As the API server's admission does: of several defaults the newest, then the first by name.
fn default_class(builder: &Builder<'_>) -> Option<String> {
    let is_default = |class: &&std::sync::Arc<IngressClass>| {
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

/// Parameters are optional by specification; we define no kind of them, so they change nothing, loudly.
fn check_parameters(builder: &mut Builder<'_>, class: &IngressClass) {
    let Some(parameters) = class.spec.as_ref().and_then(|s| s.parameters.as_ref()) else {
        return;
    };
    let origin = Origin::new("IngressClass", "", world::name(&class.metadata));
    let group = parameters.api_group.as_deref().unwrap_or("core");
    let namespaced = match (parameters.scope.as_deref().unwrap_or("Cluster"), &parameters.namespace) {
        ("Namespace", Some(namespace)) => format!(" in namespace {namespace}"),
        ("Cluster", None) => String::new(),
        ("Namespace", None) => {
            let fix = "set spec.parameters.namespace, or scope: Cluster";
            return builder.warning(
                &origin,
                "spec.parameters.namespace",
                "scope Namespace needs a namespace",
                fix,
            );
        }
        ("Cluster", Some(_)) => {
            let fix = "remove spec.parameters.namespace, or set scope: Namespace";
            return builder.warning(
                &origin,
                "spec.parameters.namespace",
                "scope Cluster allows no namespace",
                fix,
            );
        }
        (scope, _) => {
            let fix = "use Cluster or Namespace";
            return builder.warning(
                &origin,
                "spec.parameters.scope",
                format!("scope {scope} is not known"),
                fix,
            );
        }
    };
    builder.warning(
        &origin,
        "spec.parameters",
        format!(
            "parameters of kind {group}/{}{namespaced} are not known and change nothing",
            parameters.kind
        ),
        "remove spec.parameters",
    );
}
