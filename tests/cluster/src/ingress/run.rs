//! Runs cases: most beside each other, those that take every host one after another at the end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pierhead_wire::pki::{self, Authority, Leaf};
use serde_json::{Value, json};

use super::backends;
use super::check::Asker;
use super::expand::{self, Ask, NAMESPACE, object_name};
use super::table::{Case, Certificate, Status, Step};
use crate::api::Id;
use crate::lab::{Lab, eventually};

/// How many cases run at a time.
const WIDTH: usize = 12;

/// How long the cluster may take to do what a step says.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long something that must not happen is waited for.
const NEVER: Duration = Duration::from_secs(2);

/// Until what is made is younger.
const LATER: Duration = Duration::from_millis(1100);

/// What another controller wrote into a status, and must survive.
const FOREIGN: &str = "192.0.2.77";

/// The Ingress whose address answers for cases that have none.
const ANCHOR: &str = "anchor";

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    pub name: String,
    /// Why it failed.
    pub failure: Option<String>,
}

struct Suite<'a> {
    lab: &'a Lab,
    authority: Authority,
    /// Where Ingresses are served, as the anchor's status says.
    anchor: IpAddr,
}

/// Runs all cases; an outcome each, in their order.
///
/// # Errors
/// The suite cannot be set up: no backends, or no Ingress gets an address.
pub fn run(lab: &Lab, cases: &[Case]) -> Result<Vec<Outcome>> {
    for object in backends::objects() {
        lab.api.apply(&object)?;
    }
    for (namespace, name) in backends::deployments() {
        lab.rolled_out("Deployment", namespace, name, Duration::from_secs(90))?;
    }
    let suite = Suite {
        lab,
        authority: Authority::new()?,
        anchor: anchor(lab)?,
    };
    let outcomes: Mutex<BTreeMap<usize, Outcome>> = Mutex::default();
    let next = Mutex::new(cases.iter().enumerate().filter(|(_, case)| !case.alone));
    let note = |index: usize, outcome: Outcome| {
        if let Ok(mut all) = outcomes.lock() {
            all.insert(index, outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..WIDTH {
            scope.spawn(|| {
                while let Some((index, case)) = next.lock().ok().and_then(|mut next| next.next()) {
                    note(index, suite.run(case));
                }
            });
        }
    });
    for (index, case) in cases.iter().enumerate().filter(|(_, case)| case.alone) {
        note(index, suite.run(case));
    }
    let outcomes = outcomes
        .into_inner()
        .map_err(|_poisoned| anyhow::anyhow!("a case panicked"))?;
    ensure!(outcomes.len() == cases.len(), "some cases did not run");
    Ok(outcomes.into_values().collect())
}

/// Makes the anchor; its address.
fn anchor(lab: &Lab) -> Result<IpAddr> {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": NAMESPACE, "name": ANCHOR},
        "spec": {
            "ingressClassName": "pierhead",
            "rules": [{"host": "anchor.example.com", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "red", "port": {"name": "http"}}}},
            ]}}],
        },
    });
    lab.api.apply(&object)?;
    let id = Id::of(&object)?;
    eventually("the first Ingress has an address", Duration::from_secs(60), || {
        address(lab, &id)?.context("none yet")
    })
}

/// The first address that an Ingress's status gives.
fn address(lab: &Lab, id: &Id) -> Result<Option<IpAddr>> {
    let object = lab.api.get(id)?.with_context(|| format!("there is no {id}"))?;
    let text = object["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
    text.map(|text| text.parse().with_context(|| format!("{text:?} is no address")))
        .transpose()
}

impl Suite<'_> {
    fn run(&self, case: &Case) -> Outcome {
        let mut running = Running {
            suite: self,
            case,
            applied: Vec::new(),
            leaves: BTreeMap::new(),
        };
        let result = case
            .steps
            .iter()
            .enumerate()
            .try_for_each(|(index, step)| running.step(step).with_context(|| format!("step {}", index + 1)));
        let cleaned = running.clean();
        Outcome {
            name: case.name.clone(),
            failure: result.and(cleaned).err().map(|error| format!("{error:#}")),
        }
    }
}

struct Running<'a> {
    suite: &'a Suite<'a>,
    case: &'a Case,
    applied: Vec<Id>,
    leaves: BTreeMap<String, Leaf>,
}

impl Running<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        let api = &self.suite.lab.api;
        if step.later {
            thread::sleep(LATER);
        }
        for text in &step.delete {
            api.delete(&self.id(text)?)?;
        }
        for certificate in &step.certificates {
            self.certify(certificate)?;
        }
        for object in &step.objects {
            self.apply(object.clone())?;
        }
        let mut statuses = BTreeMap::new();
        for short in &step.ingresses {
            let object = expand::ingress(short, &self.case.host(), &self.case.slug)?;
            if short.class.as_deref() == Some("pierhead") {
                let name = match &short.namespace {
                    None => short.name.clone(),
                    Some(namespace) => format!("{namespace}/{}", short.name),
                };
                statuses.insert(name, Status::Given);
            }
            self.apply(object)?;
        }
        for (text, patch) in &step.patch {
            let (text, sub) = text.split_once('#').unwrap_or((text, ""));
            let sub = if sub.is_empty() {
                String::new()
            } else {
                format!("/{sub}")
            };
            api.merge(&self.id(text)?, &sub, patch)?;
        }
        statuses.extend(step.status.iter().map(|(name, status)| (name.clone(), *status)));
        let at = self.statuses(&statuses)?;
        self.requests(step, at)
    }

    fn apply(&mut self, mut object: Value) -> Result<()> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let metadata = &mut object["metadata"];
        if Id::is_namespaced(&kind) && metadata["namespace"].is_null() {
            metadata["namespace"] = json!(NAMESPACE);
        }
        let id = Id::of(&object)?;
        self.suite.lab.api.apply(&object)?;
        if !self.applied.contains(&id) {
            self.applied.push(id);
        }
        Ok(())
    }

    /// Makes a TLS Secret, or one that looks like it.
    fn certify(&mut self, certificate: &Certificate) -> Result<()> {
        let text = if certificate.names.is_empty() {
            pki::secret(&certificate.secret, "no certificate", "no key")
        } else {
            let names: Vec<&str> = certificate.names.iter().map(String::as_str).collect();
            let leaf = self.suite.authority.leaf(&names)?;
            let text = leaf.secret(&certificate.secret);
            self.leaves.insert(certificate.secret.clone(), leaf);
            text
        };
        let mut object: Value = serde_saphyr::from_str(&text)?;
        if let Some(namespace) = &certificate.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.apply(object)
    }

    /// Waits until statuses are as they must be; an address to ask.
    fn statuses(&self, wanted: &BTreeMap<String, Status>) -> Result<IpAddr> {
        let mut at = None;
        for (name, status) in wanted {
            let id = self.id(&format!("Ingress/{name}"))?;
            match status {
                Status::Given => {
                    let found = eventually(&format!("{id} has an address"), PATIENCE, || {
                        address(self.suite.lab, &id)?
                            .filter(|address| address.to_string() != FOREIGN)
                            .context("none yet")
                    })?;
                    at = at.or(Some(found));
                }
                Status::None => {
                    eventually(&format!("{id} has no address"), PATIENCE, || {
                        ensure!(address(self.suite.lab, &id)?.is_none(), "it still has one");
                        Ok(())
                    })?;
                }
                Status::Foreign => {
                    let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": FOREIGN}]}}});
                    self.suite.lab.api.merge(&id, "/status", &patch)?;
                }
            }
        }
        if wanted.values().any(|status| *status != Status::Given) {
            thread::sleep(NEVER);
            self.untouched(wanted)?;
        }
        Ok(at.unwrap_or(self.suite.anchor))
    }

    /// What must have no address, or another's, is still so.
    fn untouched(&self, wanted: &BTreeMap<String, Status>) -> Result<()> {
        for (name, status) in wanted {
            let id = self.id(&format!("Ingress/{name}"))?;
            let found = address(self.suite.lab, &id)?.map(|address| address.to_string());
            match (status, found.as_deref()) {
                (Status::Given, _) | (Status::None, None) | (Status::Foreign, Some(FOREIGN)) => {}
                (_, found) => bail!("{id} has the address {found:?}, which nobody may have written"),
            }
        }
        Ok(())
    }

    /// Every request gets what it must, the wanted ones waited for; then all once more, without patience.
    fn requests(&self, step: &Step, at: IpAddr) -> Result<()> {
        let asks: Vec<Ask> = step
            .requests
            .iter()
            .map(|request| expand::request(request, &self.case.host()))
            .collect::<Result<_>>()?;
        let asker = Asker {
            client: &self.suite.lab.client,
            leaves: &self.leaves,
        };
        for ask in &asks {
            eventually("as the table says", PATIENCE, || asker.holds(ask, at))?;
        }
        asks.iter().try_for_each(|ask| asker.holds(ask, at))
    }

    /// `Kind/name` of this case, or `Kind/namespace/name` of anybody.
    fn id(&self, text: &str) -> Result<Id> {
        let words: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match words[..] {
            ["Ingress", name] => ("Ingress", NAMESPACE, object_name(&self.case.slug, name)),
            ["Ingress", namespace, name] => ("Ingress", namespace, object_name(&self.case.slug, name)),
            [kind, name] if Id::is_namespaced(kind) => (kind, NAMESPACE, name.to_owned()),
            [kind, name] => (kind, "", name.to_owned()),
            [kind, namespace, name] => (kind, namespace, name.to_owned()),
            _ => bail!("no object: {text:?}"),
        };
        let api_version = match kind {
            "Ingress" | "IngressClass" => "networking.k8s.io/v1",
            "Deployment" => "apps/v1",
            "Service" | "Secret" | "ConfigMap" | "Namespace" => "v1",
            "GatewayParameters" => "pierhead.dev/v1alpha1",
            "Gateway" | "HTTPRoute" => "gateway.networking.k8s.io/v1",
            _ => bail!("no kind that cases use: {kind}"),
        };
        Ok(Id::new(api_version, kind, namespace, &name))
    }

    fn clean(&self) -> Result<()> {
        for id in self.applied.iter().rev() {
            self.suite.lab.api.delete(id)?;
        }
        Ok(())
    }
}
