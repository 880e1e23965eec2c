//! Names of backends become addresses: asked again when the records expire, the last good answer kept when asking fails.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use pierhead_model::Hostname;
use tokio::{
    sync::mpsc::UnboundedSender,
    task::{AbortHandle, spawn_local},
    time::sleep,
};

/// Bounds of the time until a name is asked for again, whatever its TTL says.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(3600);
/// Pauses after failures double up to this.
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

/// A new answer for a name.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) name: Hostname,
    /// Sorted, not empty.
    pub(crate) addresses: Arc<[IpAddr]>,
}

/// The names that are asked for, each by a task of its own on the runtime this is used in.
#[derive(Debug)]
pub(crate) struct Names {
    tasks: HashMap<Hostname, AbortHandle, RandomState>,
    answers: UnboundedSender<Answer>,
}

impl Names {
    pub(crate) fn new(answers: UnboundedSender<Answer>) -> Self {
        Self {
            tasks: HashMap::default(),
            answers,
        }
    }

    /// Asks for exactly `wanted` from now on.
    pub(crate) fn want(&mut self, wanted: &BTreeSet<Hostname>) {
        self.tasks.retain(|name, task| {
            let keep = wanted.contains(name);
            if !keep {
                task.abort();
            }
            keep
        });
        for name in wanted {
            let answers = &self.answers;
            self.tasks
                .entry(name.clone())
                .or_insert_with(|| spawn_local(follow(name.clone(), answers.clone())).abort_handle());
        }
    }
}

async fn follow(name: Hostname, answers: UnboundedSender<Answer>) {
    let mut last: Option<Arc<[IpAddr]>> = None;
    let mut pause = SOONEST;
    loop {
        match resolve(&name).await {
            Ok((addresses, valid_for)) => {
                pause = SOONEST;
                if last.as_ref() != Some(&addresses) {
                    tracing::info!(%name, ?addresses, "a backend's name was resolved");
                    last = Some(Arc::clone(&addresses));
                    let name = name.clone();
                    if answers.send(Answer { name, addresses }).is_err() {
                        return;
                    }
                }
                sleep(valid_for.clamp(SOONEST, LATEST)).await;
            }
            Err(why) => {
                let kept = last.is_some();
                tracing::warn!(%name, why, kept, "a backend's name cannot be resolved; fix: check the name and /etc/resolv.conf");
                sleep(pause).await;
                pause = (pause * 2).min(SLOWEST_RETRY);
            }
        }
    }
}

async fn resolve(name: &Hostname) -> Result<(Arc<[IpAddr]>, Duration), String> {
    let text = name.as_str();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((Arc::from([ip]), LATEST));
    }
    // RFC 6761 §6.3: never asked of a server.
    if text == "localhost" || text.ends_with(".localhost") {
        let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Ok((Arc::from(addresses), LATEST));
    }
    // Made anew each time: /etc/hosts and /etc/resolv.conf are read as they are now.
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    // A name with a dot is complete, as for the CNAME an ExternalName stands for: no search list.
    let asked = if text.contains('.') {
        format!("{text}.")
    } else {
        text.to_owned()
    };
    let found = resolver.lookup_ip(asked).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.iter().collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    let valid_for = found.valid_until().saturating_duration_since(Instant::now());
    Ok((addresses.into(), valid_for))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (addresses, _) = runtime.block_on(resolve(&Hostname::parse(name).unwrap())).unwrap();
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn literals_and_localhost_need_no_server() {
        assert_eq!(resolved("192.0.2.1"), ["192.0.2.1"]);
        assert_eq!(resolved("2001:db8::1"), ["2001:db8::1"]);
        assert_eq!(resolved("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(resolved("a.localhost"), ["127.0.0.1", "::1"]);
    }
}
