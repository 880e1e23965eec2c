use super::*;

/// A cluster with a Lease and clocks.
struct Rig {
    start: Instant,
    elapsed: Duration,
    lease: Option<LeaseSpec>,
}

impl Rig {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            elapsed: Duration::ZERO,
            lease: None,
        }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn time(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.elapsed
    }

    /// The candidate looks, and writes if it may. Whether it leads then.
    fn turn(&mut self, candidate: &mut Candidate) -> bool {
        self.turn_of(candidate, false, Duration::ZERO)
    }

    /// The same, where the holder does not answer, and the API server's answer took a while.
    fn turn_of(&mut self, candidate: &mut Candidate, is_silent: bool, took: Duration) -> bool {
        let step = candidate.step(View {
            lease: self.lease.as_ref(),
            asked: self.now() - took,
            now: self.now(),
            is_silent,
            time: self.time(),
        });
        if let Step::Take(spec) = step {
            self.lease = Some((*spec).clone());
            candidate.took(*spec, self.now());
        }
        candidate.leads(self.now())
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.after_ms(seconds * 1000)
    }

    fn after_ms(&mut self, milliseconds: u64) -> &mut Self {
        self.elapsed += Duration::from_millis(milliseconds);
        self
    }
}

#[test]
fn the_first_leads_and_the_others_wait_as_long_as_it_renews() {
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut rig = Rig::new();
    assert!(rig.turn(&mut a));
    let acquired = rig.lease.clone().unwrap().acquire_time;
    for _ in 0..30 {
        rig.after(2);
        assert!(!rig.turn(&mut b));
        assert!(rig.turn(&mut a));
    }
    let lease = rig.lease.unwrap();
    assert_eq!((lease.lease_transitions, lease.acquire_time), (Some(1), acquired));
}

#[test]
fn a_leader_that_cannot_renew_stops_before_another_begins() {
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut rig = Rig::new();
    rig.turn(&mut a);
    assert!(!rig.turn(&mut b));
    for second in 1..=14 {
        rig.after(1);
        assert!(!rig.turn(&mut b), "after {second} s");
        assert_eq!(a.leads(rig.now()), second < 10, "after {second} s");
    }
    rig.after(1);
    assert!(rig.turn(&mut b));
    assert!(!rig.turn(&mut a));
    assert_eq!(rig.lease.unwrap().lease_transitions, Some(2));
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once() {
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut rig = Rig::new();
    rig.turn(&mut a);
    assert!(!rig.turn(&mut b));
    assert_eq!(b.release(rig.lease.as_ref().unwrap(), rig.time()), None);
    rig.lease = a.release(rig.lease.as_ref().unwrap(), rig.time());
    assert!(rig.after(1).turn(&mut b));
}

#[test]
fn a_replica_that_starts_again_under_its_name_goes_on() {
    let mut a = Candidate::new("a");
    let mut rig = Rig::new();
    rig.turn(&mut a);
    let mut again = Candidate::new("a");
    assert!(rig.after(1).turn(&mut again));
    assert_eq!(rig.lease.unwrap().lease_transitions, Some(1));
}

/// Who can reach whom, and after how long the one that waits leads, looking every 100 ms; within 20 s.
#[test]
fn a_leader_is_replaced_early_only_when_it_neither_renews_nor_answers() {
    const NEVER: Option<u64> = None;
    #[rustfmt::skip]
    let table = [
        // What is wrong with the leader from the beginning  renews  answers  replaced after
        ("nothing",                                          true,   true,    NEVER),
        ("cut off from the one that waits",                  true,   false,   NEVER),
        ("cut off from the API server",                      false,  true,    Some(15_000)),
        ("cut off from both, or dead",                       false,  false,   Some(1_200)),
    ];
    for (what, renews, answers, expected) in table {
        let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
        let mut rig = Rig::new();
        rig.turn(&mut a);
        let mut replaced = None;
        for ms in (0..20_000_u64).step_by(100) {
            if renews && ms % 1000 == 0 {
                rig.turn(&mut a);
            }
            if rig.turn_of(&mut b, !answers, Duration::ZERO) {
                replaced = Some(ms);
                break;
            }
            rig.after_ms(100);
        }
        assert_eq!(replaced, expected, "{what}");
        if replaced.is_some() {
            assert!(!rig.turn(&mut a), "{what}: it looks again, and does not lead any more");
        }
    }
}

#[test]
fn what_the_api_server_said_long_ago_is_no_reason() {
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut rig = Rig::new();
    rig.turn(&mut a);
    rig.turn_of(&mut b, true, Duration::ZERO);
    rig.after(5);
    // Asked 1 s after the last answer, answered 4 s later.
    assert!(!rig.turn_of(&mut b, true, Duration::from_secs(4)));
    assert!(rig.turn_of(&mut b, true, Duration::ZERO));
}

#[test]
fn suspicion_begins_when_a_renewal_is_seen_whatever_its_clock_says() {
    let mut b = Candidate::new("b");
    let mut rig = Rig::new();
    assert_eq!(b.suspicion(), None);
    let mut a = Candidate::new("a");
    rig.turn(&mut a);
    // A minute old by the clocks of others: it may be theirs that are wrong.
    rig.after(60);
    assert!(!rig.turn_of(&mut b, true, Duration::ZERO));
    assert_eq!(b.suspicion(), Some(rig.now() + pace::SUSPICION));
    rig.after(1);
    rig.turn(&mut a);
    assert!(!rig.turn_of(&mut b, true, Duration::ZERO));
    assert_eq!(b.suspicion(), Some(rig.now() + pace::SUSPICION));
    assert_eq!(a.suspicion(), None, "nobody suspects itself");
}
