//! How a node stands with its controller: for status, metrics and logs.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// A view of it, replaced whole on each change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// Where the controller is, as it was given.
    pub(crate) controller: String,
    pub(crate) state: State,
    /// Of the snapshot in force, as the controller numbers them; 0: none of its yet.
    pub(crate) version: u64,
    /// Resources that could not be applied, and why.
    pub(crate) nacks: BTreeMap<String, String>,
    /// How often a connection was made.
    pub(crate) connections: u64,
    /// Changes received.
    pub(crate) responses: u64,
    /// Changes of which something was refused.
    pub(crate) refusals: u64,
    /// End of validity of the node's certificate, in seconds since the Unix epoch.
    pub(crate) certificate_until: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Connecting,
    Connected,
    /// With the reason.
    Away(String),
}

impl Link {
    pub(crate) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }
}

impl Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Connecting => f.write_str("connecting"),
            State::Connected => f.write_str("connected"),
            State::Away(why) => write!(f, "NOT CONNECTED ({why})"),
        }
    }
}
