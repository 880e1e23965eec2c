//! The node's end of a stream.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use pierhead_model::{Announcer, DataPathReport, Snapshot};

use crate::{
    Candidate, DeltaRequest, DeltaResponse, NamedVersionMessage, PART_BYTES, Resource, ResourceErrorMessage,
    ResourceName, assemble::Assembly,
};

/// What a node knows and says, over any number of streams, one at a time. Pure: the caller sends and receives.
///
/// ```text
/// connect() ──▶ requests           receive(response) ─▶ Candidate ─▶ the caller applies it
///                                    applied()  ─▶ request: acknowledged
///                                    refuse(..) ─▶ another candidate, without some resources
///                                    rejected(..) ─▶ request: nothing of it could be applied
/// ```
#[derive(Debug)]
pub struct Client {
    node: String,
    program: String,
    assembly: Assembly,
    stream: Stream,
    /// What the caller is applying.
    candidate: Option<Candidate>,
    /// What the last accepted candidate lacked, and why.
    held_back: Vec<ResourceErrorMessage>,
    paths: Fresh<Vec<DataPathReport>>,
    addresses: Fresh<Vec<IpAddr>>,
}

/// Where the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// The controller speaks next.
    Listening,
    /// Parts of this response have come, not all.
    Receiving { nonce: u64 },
    /// This response is whole and not answered.
    Applying { nonce: u64 },
}

/// Something to report, and whether the controller of this stream lacks it.
#[derive(Debug, Default)]
struct Fresh<T> {
    value: T,
    is_fresh: bool,
}

impl<T: PartialEq> Fresh<T> {
    fn set(&mut self, value: T) {
        self.is_fresh |= self.value != value;
        self.value = value;
    }

    /// The value, unless the controller has it.
    fn take<M>(&mut self, message: impl FnOnce(&T) -> M) -> Option<M> {
        std::mem::take(&mut self.is_fresh).then(|| message(&self.value))
    }
}

/// What a response led to.
#[derive(Debug)]
pub enum Received {
    /// It goes on in the next response.
    More,
    /// It is whole: apply this, then say how that went.
    Apply(Arc<Snapshot>),
}

/// A response that a sound controller does not send; end the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnexpectedResponse {
    #[error("response {0} came while another was not answered")]
    Interleaved(u64),
    #[error("resource {name}: {source}")]
    Version {
        name: String,
        source: crate::InvalidVersion,
    },
}

impl Client {
    /// A node that holds nothing. `program` is its version, for people.
    pub fn new(node: &str, program: &str) -> Self {
        Self {
            node: node.to_owned(),
            program: program.to_owned(),
            assembly: Assembly::default(),
            stream: Stream::Listening,
            candidate: None,
            held_back: Vec::new(),
            paths: Fresh::default(),
            addresses: Fresh::default(),
        }
    }

    /// A node that runs this snapshot, as it was found on disk.
    pub fn with_snapshot(mut self, snapshot: &Arc<Snapshot>) -> Self {
        self.assembly = Assembly::of(snapshot);
        self
    }

    /// The last snapshot that was applied.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.assembly.good()
    }

    /// What is not as the controller wants it, with the reasons, as of the last applied snapshot.
    pub fn held_back(&self) -> &[ResourceErrorMessage] {
        &self.held_back
    }

    /// The first requests of a new stream: who we are and what we hold. What the last stream left half sent stays; the new
    /// controller sends what is missing.
    pub fn connect(&mut self) -> Vec<DeltaRequest> {
        self.stream = Stream::Listening;
        self.candidate = None;
        self.paths.is_fresh = true;
        self.addresses.is_fresh = true;
        let mut parts = vec![DeltaRequest {
            node: self.node.clone(),
            program: self.program.clone(),
            resource_errors: self.held_back.clone(),
            announced: Some((&self.announced()).into()),
            ..self.report_now()
        }];
        let mut room = PART_BYTES;
        for (name, version) in self.assembly.versions() {
            let bytes = name.as_str().len() + 24;
            if bytes > room {
                if let Some(last) = parts.last_mut() {
                    last.more = true;
                }
                parts.push(DeltaRequest::default());
                room = PART_BYTES;
            }
            room = room.saturating_sub(bytes);
            if let Some(last) = parts.last_mut() {
                last.initial_resource_versions.push(NamedVersionMessage {
                    name: name.as_str().to_owned(),
                    version: Bytes::copy_from_slice(version.as_bytes()),
                });
            }
        }
        parts
    }

    /// Takes a response in.
    ///
    /// # Errors
    /// When it is none that a sound controller sends at this point.
    pub fn receive(&mut self, response: DeltaResponse) -> Result<Received, UnexpectedResponse> {
        let DeltaResponse {
            nonce,
            system_version: _,
            resources,
            removed_resources,
            more,
        } = response;
        match self.stream {
            Stream::Listening => {}
            Stream::Receiving { nonce: begun } if begun == nonce => {}
            Stream::Receiving { .. } | Stream::Applying { .. } => return Err(UnexpectedResponse::Interleaved(nonce)),
        }
        for message in resources {
            let name = message.name.clone();
            let resource =
                Resource::try_from(message).map_err(|source| UnexpectedResponse::Version { name, source })?;
            self.assembly.put(resource);
        }
        for name in removed_resources {
            self.assembly.remove(&ResourceName::from(name));
        }
        if more {
            self.stream = Stream::Receiving { nonce };
            return Ok(Received::More);
        }
        self.stream = Stream::Applying { nonce };
        Ok(Received::Apply(self.next_candidate()))
    }

    /// Some resources of the candidate cannot be used, for these reasons: what to apply instead. They are held back until
    /// they change.
    pub fn refuse(&mut self, reasons: impl IntoIterator<Item = (ResourceName, String)>) -> Arc<Snapshot> {
        self.assembly.refuse(reasons);
        self.next_candidate()
    }

    /// The candidate was applied: the acknowledgement, naming what was held back. `None`: the stream of that response is
    /// gone, there is nobody to tell.
    pub fn applied(&mut self) -> Option<DeltaRequest> {
        let candidate = self.candidate.take()?;
        self.assembly.accept(&candidate);
        let held_back = candidate.held_back.into_iter();
        self.held_back = held_back
            .map(|(name, reason)| ResourceErrorMessage {
                version: self
                    .assembly
                    .version(&name)
                    .map(|version| Bytes::copy_from_slice(version.as_bytes()))
                    .unwrap_or_default(),
                name: name.as_str().to_owned(),
                reason,
            })
            .collect();
        self.answer(String::new())
    }

    /// Nothing of the candidate could be applied: the node stays with what it had, and tries again with the next response.
    pub fn rejected(&mut self, why: &str) -> Option<DeltaRequest> {
        self.candidate = None;
        // An empty reason would read as none.
        self.answer(if why.is_empty() {
            "rejected".to_owned()
        } else {
            why.to_owned()
        })
    }

    /// What carries each bind now; goes out with the next request.
    pub fn set_paths(&mut self, paths: Vec<DataPathReport>) {
        self.paths.set(paths);
    }

    /// The addresses of the node; go out with the next request.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses.set(addresses);
    }

    /// A request for what was set and not told yet, if there is any.
    pub fn report(&mut self) -> Option<DeltaRequest> {
        (self.paths.is_fresh || self.addresses.is_fresh).then(|| self.report_now())
    }

    /// What this node was elected to announce, and announces.
    fn announced(&self) -> Vec<IpAddr> {
        let owned = self.snapshot().owned.iter();
        let own =
            owned.filter(|(_, one)| matches!(&one.announcer, Some(Announcer::Node(name)) if **name == *self.node));
        own.map(|(prefix, _)| prefix.0.addr()).collect()
    }

    fn next_candidate(&mut self) -> Arc<Snapshot> {
        let candidate = self.assembly.candidate();
        let snapshot = Arc::clone(&candidate.snapshot);
        self.candidate = Some(candidate);
        snapshot
    }

    fn answer(&mut self, error_detail: String) -> Option<DeltaRequest> {
        let Stream::Applying { nonce } = self.stream else {
            return None;
        };
        self.stream = Stream::Listening;
        Some(DeltaRequest {
            response_nonce: nonce,
            error_detail,
            resource_errors: self.held_back.clone(),
            ..self.report_now()
        })
    }

    fn report_now(&mut self) -> DeltaRequest {
        DeltaRequest {
            paths: self.paths.take(|paths| paths.into()),
            addresses: self.addresses.take(|addresses| addresses.into()),
            ..DeltaRequest::default()
        }
    }
}
