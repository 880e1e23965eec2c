//! Annotations written for ingress-nginx. None is honoured yet; one that guards access must not be lost silently.

use k8s_openapi::api::networking::v1::Ingress;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// What the annotations of one Ingress ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    /// Guards access to the paths of this Ingress: they fail closed.
    pub(super) guards: Vec<String>,
    /// Guards access to every path of its hosts, whichever Ingress they stand in (nginx puts it into the `server` block).
    pub(super) host_guards: Vec<String>,
    /// Everything else.
    pub(super) ignored: Vec<String>,
}

impl Annotations {
    pub(super) fn of(ingress: &Ingress) -> Self {
        let mut found = Self::default();
        let all = ingress.metadata.annotations.iter().flatten();
        let ours: Vec<(&str, &str)> = all
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        // `off` asks for no certificate, whatever the other auth-tls annotations say.
        let tls_off = ours.contains(&("auth-tls-verify-client", "off"));
        for (key, value) in ours {
            let list = if key.starts_with("auth-tls-") && !tls_off {
                &mut found.host_guards
            } else if !key.starts_with("auth-tls-") && guards(key, value) {
                &mut found.guards
            } else {
                &mut found.ignored
            };
            list.push(format!("{PREFIX}{key}"));
        }
        found
    }
}

/// Whether ignoring the annotation would let somebody in whom its author shut out.
fn guards(key: &str, value: &str) -> bool {
    match key {
        "whitelist-source-range" | "allowlist-source-range" | "denylist-source-range" => !value.trim().is_empty(),
        "enable-modsecurity" | "enable-owasp-core-rules" | "enable-global-auth" => value == "true",
        "satisfy" => true,
        _ => key.starts_with("auth-") || key.starts_with("modsecurity-"),
    }
}
