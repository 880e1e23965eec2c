//! The choice of how much the kernel does, and the kernel data plane as this process holds it.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use pierhead_dataplane::{Dataplane, WorkerLoads};
use pierhead_kernel::{Capabilities, Counters, Kernel, KernelError, Loads, Options, WorkerSockets};
use pierhead_model::{DataPathReport, Snapshot};

use crate::cli::{Ebpf, NodeOptions};
use crate::machine;

/// How much the kernel does, and why that much.
#[derive(Clone, Debug)]
pub(crate) struct Mode {
    pub(crate) asked: Ebpf,
    pub(crate) chosen: Ebpf,
    pub(crate) why: String,
}

/// The kernel data plane, opened.
#[derive(Debug)]
pub(crate) struct Steering {
    kernel: Mutex<Kernel>,
}

/// The kernel's counters, as the data plane knows them.
#[derive(Debug)]
struct Counted(Loads);

impl WorkerLoads for Counted {
    fn add(&self, worker: usize) {
        self.0.add(worker);
    }

    fn sub(&self, worker: usize) {
        self.0.sub(worker);
    }
}

/// Decides what to use on this machine and opens it. `None`: nothing.
///
/// What was asked for by name and cannot be had is an error; `auto` takes less, and says why. A second instance is an
/// error in any case, unless it is to take over: the first one would get the traffic.
pub(crate) fn open(options: &NodeOptions, takeover: bool) -> Result<(Mode, Option<Steering>)> {
    let asked = options.ebpf;
    if asked == Ebpf::Off {
        return Ok((
            Mode {
                asked,
                chosen: Ebpf::Off,
                why: if machine::is_root() {
                    "asked for".into()
                } else {
                    // What choosing it costs; as root somebody knows that already.
                    "asked for; as root the kernel could bring any address and port here, those below 1024 and address \
                     pools included, and balance TCP and UDP by itself"
                        .into()
                },
            },
            None,
        ));
    }
    let (chosen, why) = choose(asked, &pierhead_kernel::probe(&options.nic))?;
    if chosen == Ebpf::Off {
        return Ok((Mode { asked, chosen, why }, None));
    }
    let kernel = Kernel::open(Options {
        mode: if chosen == Ebpf::Full {
            pierhead_kernel::Mode::Full
        } else {
            pierhead_kernel::Mode::Steer
        },
        nics: options.nic.clone(),
        node: options.node_name.clone(),
        max_flows: options.max_flows,
        takeover,
        ..Options::default()
    });
    match kernel {
        Ok(kernel) => Ok((
            Mode { asked, chosen, why },
            Some(Steering {
                kernel: Mutex::new(kernel),
            }),
        )),
        Err(error @ KernelError::SecondInstance { .. }) => Err(error.into()),
        Err(error) if asked == Ebpf::Auto => {
            let why = format!("the kernel programs cannot be used: {error}");
            tracing::warn!("{why}; going on with sockets only");
            Ok((
                Mode {
                    asked,
                    chosen: Ebpf::Off,
                    why,
                },
                None,
            ))
        }
        Err(error) => Err(error).with_context(|| format!("--ebpf={} cannot be had", asked.as_str())),
    }
}

fn choose(asked: Ebpf, can: &Capabilities) -> Result<(Ebpf, String)> {
    let refuse = |why: &str| {
        Err(anyhow!(
            "--ebpf={} cannot be had: {why} (or use --ebpf=auto, which takes what there is)",
            asked.as_str()
        ))
    };
    match (asked, &can.steer, &can.l4) {
        (Ebpf::Off, ..) => Ok((Ebpf::Off, "asked for".into())),
        (Ebpf::Steer, Ok(()), _) | (Ebpf::Full, _, Ok(())) => Ok((asked, "asked for".into())),
        (Ebpf::Steer, Err(why), _) | (Ebpf::Full, _, Err(why)) => refuse(why),
        (Ebpf::Auto, _, Ok(())) => Ok((
            Ebpf::Full,
            format!("everything is available; layer 4 on {}", can.interfaces.join(", ")),
        )),
        (Ebpf::Auto, Ok(()), Err(why)) => Ok((Ebpf::Steer, format!("layer 4 in the kernel is not available: {why}"))),
        (Ebpf::Auto, Err(why), _) => Ok((
            Ebpf::Off,
            format!(
                "steering is not available: {why}. With it, any address and any port (also below 1024, also of a \
                 pool) would be served, and TCP and UDP balanced in the kernel"
            ),
        )),
    }
}

impl Steering {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // Each call leaves the kernel's maps consistent, or the next one puts them right.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the workers count their connections, for the steering program to see.
    pub(crate) fn loads(&self) -> Result<Arc<dyn WorkerLoads>> {
        Ok(Arc::new(Counted(self.kernel().loads()?)))
    }

    /// Makes the workers' sockets known, puts the snapshot in force, and from then on new connections come here.
    pub(crate) fn take_charge(
        &self,
        dataplane: &Dataplane,
        snapshot: &Snapshot,
    ) -> Result<Vec<DataPathReport>, KernelError> {
        let workers = dataplane.steered_sockets();
        let sockets: Vec<_> = workers
            .iter()
            .map(|own| WorkerSockets {
                tcp4: own.tcp4.as_ref().map(AsFd::as_fd),
                tcp6: own.tcp6.as_ref().map(AsFd::as_fd),
                udp4: own.udp4.as_ref().map(AsFd::as_fd),
                udp6: own.udp6.as_ref().map(AsFd::as_fd),
            })
            .collect();
        self.kernel().take_charge(&sockets, snapshot)
    }

    pub(crate) fn apply(&self, snapshot: &Snapshot) -> Result<Vec<DataPathReport>, KernelError> {
        self.kernel().apply(snapshot)
    }

    /// Housekeeping, every second.
    pub(crate) fn tick(&self) {
        if let Err(error) = self.kernel().tick() {
            tracing::warn!("the flow table cannot be looked after: {error}");
        }
    }

    /// Whether the kernel is to be asked again about the same snapshot.
    pub(crate) fn is_due(&self) -> bool {
        self.kernel().is_due()
    }

    /// Whether a successor has taken over.
    pub(crate) fn is_superseded(&self) -> bool {
        self.kernel().superseded()
    }

    /// Leaves the namespace to the successor.
    pub(crate) fn release(&self) {
        self.kernel().release();
    }

    pub(crate) fn counters(&self) -> Result<Counters, KernelError> {
        self.kernel().counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can(steer: Result<(), &str>, l4: Result<(), &str>) -> Capabilities {
        Capabilities {
            kernel: (6, 12),
            steer: steer.map_err(str::to_owned),
            l4: l4.map_err(str::to_owned),
            interfaces: vec!["eth0".into()],
        }
    }

    #[test]
    fn auto_takes_what_there_is_and_says_why() {
        let choose = |can: &Capabilities| choose(Ebpf::Auto, can).unwrap();
        assert_eq!(choose(&can(Ok(()), Ok(()))).0, Ebpf::Full);
        let (mode, why) = choose(&can(Ok(()), Err("tcx needs Linux 6.6")));
        assert!(mode == Ebpf::Steer && why.contains("tcx needs Linux 6.6"));
        let (mode, why) = choose(&can(Err("the process lacks CAP_BPF"), Err("same")));
        assert!(mode == Ebpf::Off && why.contains("CAP_BPF") && why.contains("below 1024"));
    }

    #[test]
    fn what_is_asked_for_by_name_is_had_or_refused_with_the_reason() {
        let poor = can(Err("the process lacks CAP_BPF; fix: run it as root"), Err("same"));
        let error = choose(Ebpf::Steer, &poor).unwrap_err().to_string();
        assert!(
            error.contains("--ebpf=steer cannot be had") && error.contains("fix: run it as root"),
            "{error}"
        );
        assert_eq!(choose(Ebpf::Steer, &can(Ok(()), Err("x"))).unwrap().0, Ebpf::Steer);
        assert!(choose(Ebpf::Full, &can(Ok(()), Err("x"))).is_err());
        assert_eq!(choose(Ebpf::Off, &poor).unwrap().0, Ebpf::Off);
    }
}
