//! Every program loads on every kernel from 5.10 on, also those that only a later one attaches, and its verifier has not much
//! to look at.
//!
//! Needs root and Linux 5.10; without them these tests fail and say so.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "a kernel's numbers are read by `cargo xtask test kernels`"
)]

mod support;
#[path = "support/verifier.rs"]
mod verifier;

use pierhead_kernel::{Kernel, Mode, Options, probe};
use pierhead_model::{DataPath, Transport};
use support::{Snap, bind, in_netns, ip, share};

const PROGRAMS: [&str; 3] = ["pierhead_in", "pierhead_out", "pierhead_steer"];

/// What the verifier may look at, per program. Kernels differ, so this is the budget of all; the limit is a million. A jump
/// here is a loop that grew or a branch that no longer merges.
const BUDGET: [u32; 3] = [110_000, 45_000, 6_000];

/// What it looked at when this was last committed, on the kernels named here. Programs that grow beyond the margin on one
/// of them say so in the commit that makes them grow, by changing these numbers.
const BASELINES: [(&str, [u32; 3]); 4] = [
    ("5.10.", [95_013, 15_791, 4_701]),
    ("6.1.", [95_013, 15_791, 4_701]),
    ("6.12.", [31_869, 22_801, 1_219]),
    ("6.18.", [44_036, 26_684, 1_144]),
];
/// In percent.
const MARGIN: u32 = 10;

#[test]
fn programs_load_and_stay_within_the_verifiers_budget() {
    in_netns(|| {
        let options = Options {
            mode: Mode::Full,
            ..Options::default()
        };
        let kernel = Kernel::open(options).unwrap();
        let counted = verifier::looked_at();
        let names: Vec<&str> = counted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PROGRAMS, "all of them, and no others");
        let list: Vec<String> = counted.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("verified instructions: {}", list.join(", "));
        // What our own loader made the kernel look at, where the kernel says it (Linux 5.16).
        for (name, told) in kernel.verified_instructions().unwrap() {
            let (_, count) = counted.iter().find(|(own, _)| *own == name).unwrap();
            assert!(told == 0 || told == *count, "{name}: {told}, and by hand {count}");
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let baseline = BASELINES.iter().find(|(series, _)| release.starts_with(series));
        for (i, (name, count)) in counted.iter().enumerate() {
            assert!(*count > 0 && *count <= BUDGET[i], "{name}: {count} of {}", BUDGET[i]);
            if let Some((_, before)) = baseline {
                let most = before[i] + before[i] * MARGIN / 100;
                assert!(
                    *count <= most,
                    "{name}: {count}, which is more than {MARGIN} % above {}",
                    before[i]
                );
            }
        }
    });
}

/// Since when the kernel has tcx, and so since when it balances.
const TCX: (u32, u32) = (6, 6);

#[test]
fn layer_4_is_had_since_tcx_and_before_it_refused_with_the_reason() {
    in_netns(|| {
        ip("link add ext0 type veth peer name ext1");
        ip("link set ext0 up");
        ip("link set ext1 up");
        let nics = ["ext0".to_owned()];
        let can = probe(&nics);
        assert_eq!(can.steer, Ok(()));
        let options = |mode| Options {
            mode,
            nics: nics.to_vec(),
            ..Options::default()
        };
        let snapshot = || {
            Snap::default().l4(
                bind(Transport::Tcp, "198.51.100.1:80"),
                &[share(1, &["10.1.0.10:5000"])],
            )
        };
        if can.kernel >= TCX {
            assert_eq!((can.l4, can.interfaces), (Ok(()), nics.to_vec()));
            Kernel::open(options(Mode::Full)).unwrap().activate().unwrap();
            return;
        }
        let why = format!("tcx needs Linux 6.6, this is {}.{}", can.kernel.0, can.kernel.1);
        assert_eq!((can.l4, can.interfaces), (Err(why.clone()), Vec::new()));
        // Not the number alone: the kernel itself refuses the link. Asked for all the same, the bind is not left without.
        let mut kernel = Kernel::open(options(Mode::Full)).unwrap();
        let reports = kernel.apply(&snapshot().0).unwrap();
        assert!(
            reports
                .iter()
                .all(|it| it.path == DataPath::Steered && it.why.contains(&why)),
            "{reports:?}"
        );
        assert!(kernel.activate().is_err());
        drop(kernel);
        let mut kernel = Kernel::open(options(Mode::Steer)).unwrap();
        let reports = kernel.apply(&snapshot().0).unwrap();
        assert!(reports.iter().all(|it| it.path == DataPath::Steered), "{reports:?}");
        kernel.activate().unwrap();
    });
}
