//! When a replica that has won the Lease begins to decide: the nodes must have come over first, or it would seem that they are
//! gone, and their addresses would move.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pierhead_protocol::pace;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::nodes::Nodes;

/// How long it waits for the first node: there may be none.
const ALONE: Duration = Duration::from_secs(3);
/// However many nodes keep coming, it is not waited for longer.
const LONGEST: Duration = Duration::from_secs(10);

/// What is known of the change of leaders.
pub(crate) struct Signs {
    /// Whether this replica has the Lease.
    pub(crate) leader: watch::Receiver<bool>,
    /// When the last leader answered last, if it died, or since when this one leads, if nothing is known of another; `None`: it gave
    /// the Lease back.
    pub(crate) orphaned: watch::Receiver<Option<std::time::Instant>>,
    /// `None`: there is one node, and it is here.
    pub(crate) nodes: Option<watch::Receiver<Arc<Nodes>>>,
}

/// Whether this replica decides. It ceases to as soon as it ceases to lead.
pub(crate) fn decides(tasks: &mut JoinSet<()>, mut signs: Signs) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tasks.spawn(async move {
        loop {
            let leads = *signs.leader.borrow_and_update();
            if leads && !*sender.borrow() {
                let orphaned = *signs.orphaned.borrow();
                tokio::select! {
                    () = gathered(orphaned, signs.nodes.as_mut()) => {
                        sender.send_replace(true);
                    }
                    changed = signs.leader.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            } else if !leads {
                sender.send_replace(false);
            }
            if signs.leader.changed().await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns when the nodes that are there have come.
async fn gathered(orphaned: Option<std::time::Instant>, nodes: Option<&mut watch::Receiver<Arc<Nodes>>>) {
    let Some(nodes) = nodes else { return };
    let begun = Instant::now();
    let earliest = orphaned.map_or(begun + pace::HANDOVER, |at| Instant::from_std(at) + pace::COMING);
    let mut there: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut last = begun;
    loop {
        let known = there.len();
        there.extend(nodes.borrow_and_update().connected().map(|(name, _)| Arc::clone(name)));
        if there.len() > known {
            last = Instant::now();
        }
        let until = match there.is_empty() {
            true => begun + ALONE,
            false => earliest.max(last + pace::QUIET).min(begun + LONGEST),
        };
        tokio::select! {
            () = sleep_until(until) => return,
            changed = nodes.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::nodes::{Membership, Registry};

    /// A rig with nodes that come at these milliseconds; after how many it decides.
    async fn decided_after(orphaned: Option<std::time::Instant>, coming: &[u64]) -> u64 {
        let registry = Registry::default();
        let mut nodes = registry.nodes();
        let begun = Instant::now();
        let join = async {
            let mut members: Vec<Membership> = Vec::new();
            for (number, at) in coming.iter().enumerate() {
                sleep_until(begun + Duration::from_millis(*at)).await;
                members.push(registry.join(&format!("node-{number}"), Timestamp::UNIX_EPOCH));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = gathered(orphaned, Some(&mut nodes)) => {}
            () = join => {}
        }
        u64::try_from(begun.elapsed().as_millis()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_waited_for_as_long_as_they_come() {
        assert_eq!(decided_after(None, &[]).await, 3000, "there is none");
        assert_eq!(decided_after(None, &[50, 100]).await, 1000);
        assert_eq!(decided_after(None, &[50, 900]).await, 1200);
        assert_eq!(decided_after(None, &[2000]).await, 2300);
        let each: Vec<u64> = (0..200).map(|n| n * 100).collect();
        assert_eq!(decided_after(None, &each).await, 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_leader_that_died_it_is_known_when_its_nodes_must_have_noticed() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let ago = |ms| Some((Instant::now() - Duration::from_millis(ms)).into_std());
        assert_eq!(decided_after(ago(1400), &[100]).await, 400, "{:?}", pace::QUIET);
        assert_eq!(decided_after(ago(600), &[100, 800]).await, 1150);
        assert_eq!(decided_after(ago(600), &[100, 1100]).await, 1400);
        assert_eq!(decided_after(ago(20_000), &[0]).await, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn who_ceases_to_lead_ceases_to_decide() {
        let (leads, leader) = watch::channel(true);
        let (_orphaned, orphaned) = watch::channel(None);
        let registry = Registry::default();
        let mut tasks = JoinSet::new();
        let signs = Signs {
            leader,
            orphaned,
            nodes: Some(registry.nodes()),
        };
        let mut decides = decides(&mut tasks, signs);
        assert!(!*decides.borrow_and_update());
        decides.wait_for(|decides| *decides).await.unwrap();
        leads.send_replace(false);
        decides.wait_for(|decides| !decides).await.unwrap();
        leads.send_replace(true);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!*decides.borrow(), "the nodes have to come again");
    }
}
