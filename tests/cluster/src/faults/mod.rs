//! Faults, each under constant load, and what they may cost.

mod churn;
mod control;
mod nodes;
mod stage;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::load::{Load, Tally};

pub use stage::Stage;

/// Load before the fault and after it, so that it hits a system at work.
const AROUND: Duration = Duration::from_secs(3);

/// Something that goes wrong, or changes, while the load goes on.
pub struct Fault {
    pub name: &'static str,
    pub about: &'static str,
    /// How many requests may fail.
    pub may_lose: u64,
    /// How long everybody may be without an answer.
    pub may_last: Duration,
    run: fn(&Stage<'_>) -> Result<()>,
}

/// All of them.
///
/// What may fail: nothing, except what was in flight in a process that was killed or on a node that was cut off, where new
/// connections must be served again within one second and within three.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "api-server-down",
        about: "the API server is dead for 60 s",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: control::api_server_down,
    },
    Fault {
        name: "controller-killed",
        about: "every controller is killed with -9 at once",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: control::controllers_killed,
    },
    Fault {
        name: "leader-change",
        about: "the leader's pod is deleted, another takes over",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: control::leader_change,
    },
    Fault {
        name: "daemon-set-rolled",
        about: "every node's pod is replaced",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: nodes::rolled,
    },
    Fault {
        name: "node-killed",
        about: "the process that serves, on the node that has the address, is killed with -9; its supervisor starts another",
        may_lose: stage::IN_FLIGHT,
        may_last: Duration::from_secs(1),
        run: nodes::killed,
    },
    Fault {
        name: "container-killed",
        about: "the supervisor too, and so the container, is killed with -9: until the kubelet has started it again (1 to 2 s) \
                or another node has the address, new connections are refused",
        may_lose: u64::MAX,
        may_last: Duration::from_secs(3),
        run: nodes::container_killed,
    },
    Fault {
        name: "node-cut-off",
        about: "the node that announces the address, and is not the leading controller's, loses its link and gets it back",
        may_lose: stage::IN_FLIGHT,
        may_last: Duration::from_secs(3),
        run: nodes::cut_off,
    },
    Fault {
        name: "node-cut-off-with-leader",
        about: "the node that announces the address, and has the leading controller, loses its link and gets it back",
        may_lose: stage::IN_FLIGHT,
        may_last: Duration::from_secs(3),
        run: nodes::cut_off_with_leader,
    },
    Fault {
        name: "backend-rolled",
        about: "the backend's Deployment is rolled 10 times",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: churn::backend_rolled,
    },
    Fault {
        name: "route-edits",
        about: "1,000 edits of routes",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: churn::route_edits,
    },
    Fault {
        name: "namespace-deleted",
        about: "a namespace with 500 routes is deleted",
        may_lose: 0,
        may_last: Duration::from_secs(1),
        run: churn::namespace_deleted,
    },
];

/// What one fault cost.
pub struct Cost {
    pub tally: Tally,
    /// Why it is too much.
    pub too_much: Option<String>,
}

/// Runs one fault under load.
///
/// # Errors
/// The stage cannot be set, the fault cannot be made, or things do not return to normal after it.
pub fn run(lab: &Lab, fault: &Fault) -> Result<Cost> {
    let stage = Stage::set(lab)?;
    let load = Load::start(&lab.client, &stage.plan());
    std::thread::sleep(AROUND);
    let before = load.so_far();
    ensure!(before.good > 0, "the load gets no answer before the fault: {before}");
    let happened = (fault.run)(&stage).context("the fault itself");
    std::thread::sleep(AROUND);
    let tally = load.end()?;
    happened?;
    lab.running().context("after the fault")?;
    let too_much = verdict(fault, &tally);
    Ok(Cost { tally, too_much })
}

fn verdict(fault: &Fault, tally: &Tally) -> Option<String> {
    if tally.lost() > fault.may_lose {
        return Some(format!("{} failed, {} may", tally.lost(), fault.may_lose));
    }
    (tally.gap > fault.may_last).then(|| {
        format!(
            "{} ms without an answer, {} may be",
            tally.gap.as_millis(),
            fault.may_last.as_millis()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (index, fault) in FAULTS.iter().enumerate() {
            assert!(
                FAULTS[..index].iter().all(|other| other.name != fault.name),
                "{}",
                fault.name
            );
        }
    }

    #[test]
    fn one_failed_request_is_too_much_where_none_may_fail() {
        let mut tally = Tally::default();
        assert!(verdict(&FAULTS[0], &tally).is_none());
        tally.failed.insert("reset".into(), 1);
        assert!(verdict(&FAULTS[0], &tally).is_some());
    }
}
