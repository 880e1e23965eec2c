//! What the data plane may rely on, whatever the input (the invariants of `Snapshot` and `Bind`).

use std::collections::BTreeSet;

use pierhead_model::{
    BackendId, BackendTarget, CertificateId, Filter, ListenerKind, TlsTermination, TrustId, WeightedBackend,
};
use pierhead_translate::Translation;

struct Check<'a> {
    translation: &'a Translation,
    wrong: Vec<String>,
}

pub(crate) fn check(translation: &Translation) -> Result<(), String> {
    let mut check = Check {
        translation,
        wrong: Vec::new(),
    };
    check.binds();
    check.routes();
    check.backends();
    if check.wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("broken invariants: {}", check.wrong.join("; ")))
    }
}

impl Check<'_> {
    fn holds(&mut self, truth: bool, otherwise: impl FnOnce() -> String) {
        if !truth {
            self.wrong.push(otherwise());
        }
    }

    fn backend(&mut self, id: &BackendId) {
        let known = self.translation.snapshot.backends.contains_key(id);
        self.holds(known, || format!("backend {id} is named but not there"));
    }

    fn weighted(&mut self, backends: &[WeightedBackend]) {
        for backend in backends {
            self.backend(&backend.backend);
            self.filters(&backend.filters);
        }
    }

    fn filters(&mut self, filters: &[Filter]) {
        for filter in filters {
            match filter {
                Filter::Mirror(mirror) => self.backend(&mirror.backend),
                Filter::ExternalAuth(auth) => self.backend(&auth.backend),
                _ => {}
            }
        }
    }

    fn certificate(&mut self, id: &CertificateId) {
        let known = self.translation.snapshot.certificates.contains_key(id);
        self.holds(known, || format!("certificate {id} is named but not there"));
    }

    fn trust(&mut self, id: &TrustId) {
        let known = self.translation.snapshot.trust.contains_key(id);
        self.holds(known, || format!("trust {id} is named but not there"));
    }

    fn termination(&mut self, tls: &TlsTermination) {
        tls.certificates
            .iter()
            .for_each(|used| self.certificate(&used.certificate));
        if let Some(auth) = &tls.client_auth {
            self.trust(&auth.trust);
        }
    }

    fn binds(&mut self) {
        for (key, bind) in &self.translation.snapshot.binds {
            let mut hosts = BTreeSet::new();
            let mut families = BTreeSet::new();
            self.holds(bind.key == *key && !bind.listeners.is_empty(), || {
                format!("bind {key} is empty or misfiled")
            });
            for listener in &bind.listeners {
                self.holds(!listener.hosts.is_empty(), || {
                    format!("listener {} has no host", listener.id)
                });
                for host in &listener.hosts {
                    self.holds(hosts.insert(host), || format!("{host} stands twice on {key}"));
                }
                families.insert(match &listener.kind {
                    ListenerKind::Http(_) => "http",
                    ListenerKind::Https { .. }
                    | ListenerKind::TlsPassthrough { .. }
                    | ListenerKind::TlsTerminate { .. } => "tls",
                    ListenerKind::Tcp { .. } => "tcp",
                    ListenerKind::Udp { .. } => "udp",
                });
                match &listener.kind {
                    ListenerKind::Http(http) => self.filters(&http.filters),
                    ListenerKind::Https { tls, http } => {
                        self.termination(tls);
                        self.filters(&http.filters);
                    }
                    ListenerKind::TlsPassthrough { routes } => {
                        routes.iter().for_each(|r| self.weighted(&r.route.backends));
                    }
                    ListenerKind::TlsTerminate { tls, routes } => {
                        self.termination(tls);
                        routes.iter().for_each(|r| self.weighted(&r.route.backends));
                    }
                    ListenerKind::Tcp { route } | ListenerKind::Udp { route } => {
                        route.iter().for_each(|r| self.weighted(&r.backends));
                    }
                }
            }
            let sole = families.contains("tcp") || families.contains("udp");
            self.holds(families.len() == 1 && (!sole || bind.listeners.len() == 1), || {
                format!("{key} mixes families")
            });
        }
    }

    fn routes(&mut self) {
        let snapshot = &self.translation.snapshot;
        let listeners: BTreeSet<_> = snapshot
            .binds
            .values()
            .flat_map(|b| b.listeners.iter().map(|l| &l.id))
            .collect();
        for (id, route) in &snapshot.routes {
            self.holds(route.id == *id && !route.attachments.is_empty(), || {
                format!("route {id} hangs nowhere")
            });
            for attachment in &route.attachments {
                let there = listeners.contains(&attachment.listener);
                self.holds(there, || {
                    format!("route {id} names the listener {}", attachment.listener)
                });
                self.holds(!attachment.hosts.is_empty(), || {
                    format!("route {id} attaches without hosts")
                });
            }
            for rule in &route.rules {
                let known = rule.hosts.as_ref().is_some_and(|hosts| !hosts.is_empty());
                self.holds(known || !rule.matches.is_empty(), || {
                    format!("a rule of {id} matches nothing and names no host")
                });
                self.filters(&rule.filters);
                self.weighted(&rule.backends);
            }
        }
    }

    fn backends(&mut self) {
        let snapshot = &self.translation.snapshot;
        for (id, backend) in &snapshot.backends {
            self.holds(backend.id == *id, || format!("backend {id} is misfiled"));
            if let BackendTarget::Endpoints(endpoints) = &backend.target {
                self.holds(snapshot.endpoints.contains_key(endpoints), || {
                    format!("endpoints {endpoints} are not there")
                });
            }
            if let Some(tls) = &backend.tls {
                self.holds(!tls.identities.is_empty(), || format!("backend {id} trusts any name"));
                tls.trust.iter().for_each(|id| self.trust(id));
                tls.client_certificate.iter().for_each(|id| self.certificate(id));
            }
        }
        for (id, endpoints) in &snapshot.endpoints {
            let sorted = endpoints
                .endpoints
                .windows(2)
                .all(|pair| pair[0].address < pair[1].address);
            self.holds(sorted, || format!("endpoints {id} are not sorted and distinct"));
        }
    }
}
