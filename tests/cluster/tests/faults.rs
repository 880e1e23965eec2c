//! One fault in every run of the tests; `cargo xtask cluster faults` has all of them.

use pierhead_cluster::faults::{self, FAULTS};
use pierhead_cluster::lab::Lab;

#[test]
fn rolling_the_nodes_fails_no_request() {
    let lab = Lab::here().unwrap();
    lab.install(&[]).unwrap();
    let fault = FAULTS.iter().find(|fault| fault.name == "daemon-set-rolled").unwrap();
    let cost = faults::run(&lab, fault).unwrap();
    assert!(cost.too_much.is_none(), "{}: {}", cost.too_much.unwrap(), cost.tally);
}
