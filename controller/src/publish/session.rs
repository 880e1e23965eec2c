//! One node's stream. Pure: requests in, batches out.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, vec};

use pierhead_model::{BindKey, DataPath, DataPathReport};
use pierhead_protocol::{Changes, DeltaRequest, DeltaResponse, PART_BYTES, Resource, ResourceName, Version};

use super::catalog::{Catalog, TooFarBehind};
use crate::nodes::NodeState;

/// How much of what a node says is kept: it may say anything.
const NACKS_MAX: usize = 1_000;
const REASON_CHARACTERS_MAX: usize = 500;
const HELD_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Session {
    node: Arc<str>,
    state: State,
    /// The last response's.
    nonce: u64,
}

#[derive(Debug)]
enum State {
    /// The node has not said all that it holds.
    Joining {
        is_named: bool,
        held: BTreeMap<ResourceName, Version>,
    },
    /// It has, and was sent nothing yet.
    Joined { held: BTreeMap<ResourceName, Version> },
    /// It answered everything up to this snapshot.
    Idle { version: u64 },
    /// It was sent what leads to this snapshot and has not answered.
    Waiting { version: u64 },
}

/// A request that no sound node sends: the stream ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("the stream is of node {0}, not of {1}")]
    OtherNode(Arc<str>, String),
    #[error("there is no unanswered response {0}")]
    Nonce(u64),
    #[error("{0}")]
    Version(#[from] pierhead_protocol::InvalidVersion),
    #[error("{0}")]
    Report(#[from] pierhead_protocol::Malformed),
    #[error("a node holds {HELD_MAX} resources at most")]
    TooMany,
}

/// What a request says of its node; `None`: nothing new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    program: Option<String>,
    addresses: Option<Vec<std::net::IpAddr>>,
    announced: Option<Vec<std::net::IpAddr>>,
    paths: Option<BTreeMap<BindKey, (DataPath, String)>>,
    nacks: Option<BTreeMap<ResourceName, String>>,
    answer: Option<Answer>,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    version: u64,
    rejected: Option<String>,
}

impl Said {
    pub(super) fn apply(self, state: &mut NodeState) {
        let Self {
            program,
            addresses,
            announced,
            paths,
            nacks,
            answer,
        } = self;
        if let Some(program) = program {
            state.program = program;
        }
        if let Some(addresses) = addresses {
            state.addresses = addresses;
        }
        if let Some(announced) = announced {
            state.announced = announced;
        }
        if let Some(paths) = paths {
            state.paths = paths.into();
        }
        if let Some(nacks) = nacks {
            state.nacks = nacks;
        }
        if let Some(Answer { version, rejected }) = answer {
            state.acked = version;
            state.rejected = rejected;
        }
    }

    /// Why the node applied nothing, if it did not.
    pub(super) fn rejection(&self) -> Option<&str> {
        self.answer.as_ref()?.rejected.as_deref()
    }
}

impl Session {
    /// A stream of the node that its certificate names.
    pub(super) fn new(node: &Arc<str>) -> Self {
        Self {
            node: Arc::clone(node),
            state: State::Joining {
                is_named: false,
                held: BTreeMap::new(),
            },
            nonce: 0,
        }
    }

    /// Whether the node has yet to say what it holds.
    pub(super) fn is_joining(&self) -> bool {
        matches!(self.state, State::Joining { .. })
    }

    /// Takes a request in.
    pub(super) fn receive(&mut self, request: DeltaRequest) -> Result<Said, BadRequest> {
        let DeltaRequest {
            node,
            initial_resource_versions,
            more,
            response_nonce,
            error_detail,
            resource_errors,
            paths,
            addresses,
            program,
            announced,
        } = request;
        let mut said = Said {
            program: (!program.is_empty()).then(|| short(program)),
            addresses: addresses.map(Vec::try_from).transpose()?,
            paths: paths.map(Vec::try_from).transpose()?.map(by_bind),
            ..Said::default()
        };
        let nacks = || {
            let nacks = resource_errors.iter().take(NACKS_MAX);
            Some(
                nacks
                    .map(|error| (ResourceName::new(&error.name), short(error.reason.clone())))
                    .collect(),
            )
        };
        match &mut self.state {
            State::Joining { is_named, held } => {
                if !*is_named {
                    if node != *self.node {
                        return Err(BadRequest::OtherNode(Arc::clone(&self.node), short(node)));
                    }
                    *is_named = true;
                    said.nacks = nacks();
                    said.announced = announced.map(Vec::try_from).transpose()?;
                }
                if held.len() + initial_resource_versions.len() > HELD_MAX {
                    return Err(BadRequest::TooMany);
                }
                for named in initial_resource_versions {
                    held.insert(ResourceName::from(named.name), Version::try_from(&*named.version)?);
                }
                if !more {
                    let held = std::mem::take(held);
                    self.state = State::Joined { held };
                }
            }
            State::Waiting { version } if response_nonce == self.nonce => {
                said.nacks = nacks();
                said.answer = Some(Answer {
                    version: *version,
                    rejected: (!error_detail.is_empty()).then(|| short(error_detail)),
                });
                // What was sent is there, whatever came of it: it is not sent again until it changes.
                self.state = State::Idle { version: *version };
            }
            State::Joined { .. } | State::Idle { .. } | State::Waiting { .. } => {
                if response_nonce != 0 {
                    return Err(BadRequest::Nonce(response_nonce));
                }
            }
        }
        Ok(said)
    }

    /// What to send now, if there is anything to tell and the node has answered all before. The first snapshot is told even
    /// to a node that holds all of it: only its answer says so.
    pub(super) fn next(&mut self, catalog: &Catalog) -> Result<Option<Batch>, TooFarBehind> {
        let version = catalog.version();
        if version == 0 {
            return Ok(None);
        }
        let changes = match &self.state {
            State::Joining { .. } | State::Waiting { .. } => return Ok(None),
            State::Joined { held } => catalog.against(held),
            State::Idle { version: held } if *held == version => return Ok(None),
            State::Idle { version: held } => catalog.since(*held)?,
        };
        self.state = State::Waiting { version };
        self.nonce += 1;
        Ok(Some(Batch::new(self.nonce, version, changes)))
    }
}

/// Cut to what people read.
fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(REASON_CHARACTERS_MAX) {
        text.truncate(end);
    }
    text
}

fn by_bind(reports: Vec<DataPathReport>) -> BTreeMap<BindKey, (DataPath, String)> {
    reports
        .into_iter()
        .map(|report| (report.bind, (report.path, short(report.why))))
        .collect()
}

/// One change, as the responses that carry it.
#[derive(Debug)]
pub(super) struct Batch {
    nonce: u64,
    system_version: u64,
    changed: vec::IntoIter<Resource>,
    removed: vec::IntoIter<ResourceName>,
    is_done: bool,
}

impl Batch {
    fn new(nonce: u64, system_version: u64, changes: Changes) -> Self {
        Self {
            nonce,
            system_version,
            changed: changes.changed.into_iter(),
            removed: changes.removed.into_iter(),
            is_done: false,
        }
    }

    pub(super) fn resources(&self) -> usize {
        self.changed.len() + self.removed.len()
    }
}

impl Iterator for Batch {
    type Item = DeltaResponse;

    /// At least one, the last without `more`. Each is made only when it can be sent, so that a slow node costs one part.
    fn next(&mut self) -> Option<DeltaResponse> {
        if self.is_done {
            return None;
        }
        let mut response = DeltaResponse {
            nonce: self.nonce,
            system_version: self.system_version,
            ..DeltaResponse::default()
        };
        let mut bytes = 0;
        while bytes < PART_BYTES {
            if let Some(resource) = self.changed.next() {
                bytes += resource.name.as_str().len() + resource.body.len() + 32;
                response.resources.push((&resource).into());
            } else if let Some(name) = self.removed.next() {
                bytes += name.as_str().len() + 8;
                response.removed_resources.push(name.as_str().to_owned());
            } else {
                self.is_done = true;
                break;
            }
        }
        response.more = !self.is_done;
        Some(response)
    }
}
