//! Who may refer to whom: ReferenceGrants and namespace selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use pierhead_gateway_api::{FromNamespaces, GROUP};

use crate::World;

/// What a reference points to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Whether an object of the Gateway API kind `kind` in `namespace` may refer to `target`: within one namespace always,
/// else if a ReferenceGrant beside the target says so. Several grants, and several entries of one, add up.
pub(super) fn permitted(world: &World, kind: &str, namespace: &str, target: Target<'_>) -> bool {
    namespace == target.namespace
        || world.reference_grants.in_namespace(target.namespace).any(|grant| {
            let from = &grant.spec.from;
            let to = &grant.spec.to;
            from.iter()
                .any(|f| f.group == GROUP && f.kind == kind && f.namespace == namespace)
                && to.iter().any(|t| {
                    t.group == target.group
                        && t.kind == target.kind
                        && t.name
                            .as_deref()
                            .is_none_or(|name| name.is_empty() || name == target.name)
                })
        })
}

/// Whether `from` and `selector`, written in namespace `owner`, mean `namespace`.
pub(super) fn selects(
    world: &World,
    from: &FromNamespaces,
    selector: Option<&LabelSelector>,
    owner: &str,
    namespace: &str,
) -> bool {
    match from {
        FromNamespaces::All => true,
        FromNamespaces::Same => owner == namespace,
        FromNamespaces::Selector => selector.is_some_and(|selector| matches(world, selector, namespace)),
        // "None", and values we do not know: nobody is let in by mistake.
        FromNamespaces::None | FromNamespaces::Unknown(_) => false,
    }
}

/// An empty selector matches every namespace. `kubernetes.io/metadata.name` is set by the API server on every Namespace;
/// without one, and for a namespace that no object declares, it is as if it were.
fn matches(world: &World, selector: &LabelSelector, namespace: &str) -> bool {
    let object = world.namespaces.get("", namespace);
    let label = |key: &str| -> Option<&str> {
        object
            .and_then(|n| n.metadata.labels.as_ref())
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
            .or_else(|| (key == "kubernetes.io/metadata.name").then_some(namespace))
    };
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| label(key) == Some(value.as_str()));
    let expressed = selector.match_expressions.iter().flatten().all(|requirement| {
        let value = label(&requirement.key);
        let listed = |value: &str| requirement.values.iter().flatten().any(|v| v == value);
        match requirement.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && expressed
}
