//! How soon another node answers for the addresses of one that died or was cut off: every time that counts, and the sums.
//!
//! The promise is 3 s. A client that waits for an answer tries again after 1, 2, 3 s (TCP's SYN) or 0.2, 0.6, 1.4, 3 s (data):
//! what has moved within 2 s is seen to have moved after 2 s, what moves later only after 3 s. So 2 s it is, in the worst case:
//!
//! | The leading controller is elsewhere                     | ms    | at    |
//! |---------------------------------------------------------|-------|-------|
//! | it asks the node, which is silent from then on          | ≤ 500 | 500   |
//! | it gives up ([`CONTROLLER_PING`])                       | 1,000 | 1,500 |
//! | election, the way to the other node, and what it does   | ≤ 200 | 1,700 |
//!
//! | The leading controller dies with the node               | ms    | at    |
//! |---------------------------------------------------------|-------|-------|
//! | the Lease was renewed just before; another saw that     | ≤ 200 | 200   |
//! | it was not renewed again ([`SUSPICION`]), and the leader | 1,200 | 1,400 |
//! | … has answered nothing at all ([`ASK`]): ≤ 1,000 meanwhile |    |       |
//! | another takes the Lease                                 | ≤ 100 | 1,500 |
//! | nodes have noticed too and are there ([`COMING`], counted from the leader's last answer) | | 1,750 |
//! | election, the way to the other node, and what it does   | ≤ 200 | 1,950 |
//!
//! With many nodes the second takes longer: as long as some still come, nothing is decided ([`QUIET`]).

use std::time::Duration;

/// How often the other end of a connection is asked for a sign of life, and how long it may take to give one.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub every: Duration,
    pub patience: Duration,
}

impl Ping {
    const fn ms(&self) -> u128 {
        self.every.as_millis() + self.patience.as_millis()
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Of a node, by its controller.
pub const CONTROLLER_PING: Ping = Ping {
    every: ms(500),
    patience: ms(1000),
};

/// Of a controller, by a node.
pub const NODE_PING: Ping = Ping {
    every: ms(400),
    patience: ms(800),
};

/// How long a node whose connection was closed counts as connected. A process that dies is followed by another one, which is
/// back within this; taking addresses away from its node would cut what others established meanwhile. A node that gives no sign
/// of life is gone at once.
pub const RESTART: Duration = ms(1000);

/// A node that lost its controller tries again after one and a half of this at most, …
pub const RETRY: Duration = ms(100);
/// The same when nobody answers for long. Not longer: a node that was cut off, and is not any more, answers for addresses that are
/// another's by now until it hears so.
pub const LAST_RETRY: Duration = ms(1000);
/// … and, when a replica does not answer, another one after so long.
pub const STAGGER: Duration = ms(150);

/// How often the leader renews its Lease, and …
pub const RENEWAL: Duration = ms(1000);
/// … how often the others look at it.
pub const LOOK: Duration = ms(200);
/// A leader that did not renew for so long, and does not answer either, is taken for dead.
pub const SUSPICION: Duration = ms(1200);
/// How long a leader may take to answer.
pub const ASK: Duration = ms(400);
/// So many times in a row it does not: one frame may get lost.
pub const ASKED: u32 = 2;

/// From a leader's last answer until the nodes that had it have come to the next: until the next question, they notice, try
/// again, and shake hands. Where nothing is known of a leader before, for all replicas died at once, from when one leads: nodes
/// may have been without one for long.
pub const COMING: Duration = ms(1750);
/// The same where the last leader gave the Lease back, and told the nodes so.
pub const HANDOVER: Duration = ms(1000);
/// As long as one came within this, others are still on their way.
pub const QUIET: Duration = ms(300);

const PROMISE: u128 = 2000;
const TO_THE_OTHER_NODE: u128 = 200;
const SHAKING_HANDS: u128 = 50;
const WRITING: u128 = 100;

const _: () = assert!(CONTROLLER_PING.ms() + TO_THE_OTHER_NODE <= PROMISE);
const _: () = assert!(COMING.as_millis() + TO_THE_OTHER_NODE <= PROMISE);
const _: () = assert!(LOOK.as_millis() + SUSPICION.as_millis() + WRITING <= COMING.as_millis());
const _: () = assert!(LOOK.as_millis() + ASKED as u128 * ASK.as_millis() <= SUSPICION.as_millis());
const _: () = assert!(RENEWAL.as_millis() < SUSPICION.as_millis());
const _: () = assert!(LAST_RETRY.as_millis() * 3 / 2 + STAGGER.as_millis() + SHAKING_HANDS <= COMING.as_millis());
const _: () = assert!(
    LOOK.as_millis() + NODE_PING.ms() + RETRY.as_millis() * 3 / 2 + STAGGER.as_millis() + SHAKING_HANDS
        <= COMING.as_millis()
);
