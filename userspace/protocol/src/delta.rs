//! The messages of the stream `pierhead.v1.Snapshots/Delta`.

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use pierhead_model::DataPathReport;

use crate::{
    InvalidVersion, Malformed, Resource, ResourceName, Version,
    wire::{DataPathReportMessage, Wire},
};

/// From a node. The first of a stream says who it is and what it holds; those after it acknowledge responses, or report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaRequest {
    /// The node's name; only in the first. It must be the one in the client certificate.
    #[prost(string, tag = "1")]
    pub node: String,
    /// What the node holds, from whomever it has it; only in the first, and in those that continue it.
    #[prost(message, repeated, tag = "2")]
    pub initial_resource_versions: Vec<NamedVersionMessage>,
    /// The next request continues the list of what the node holds.
    #[prost(bool, tag = "3")]
    pub more: bool,
    /// The response that this answers; 0: none.
    #[prost(uint64, tag = "4")]
    pub response_nonce: u64,
    /// Nothing of the response could be applied, and why; the node stays with what it had.
    #[prost(string, tag = "5")]
    pub error_detail: String,
    /// All that the node holds back at present, whichever response brought it. Only with a nonce, and in the first request.
    #[prost(message, repeated, tag = "6")]
    pub resource_errors: Vec<ResourceErrorMessage>,
    /// What carries each bind; absent: as reported before.
    #[prost(message, optional, tag = "7")]
    pub paths: Option<PathReportsMessage>,
    /// The node's addresses; absent: as reported before.
    #[prost(message, optional, tag = "8")]
    pub addresses: Option<AddressesMessage>,
    /// The node's program, for people.
    #[prost(string, tag = "9")]
    pub program: String,
    /// The addresses for which the node answers ARP and NDP because it was elected, as far as it knows; only in the first. A
    /// controller that has just begun to lead leaves them there. Absent: a program that does not say.
    #[prost(message, optional, tag = "10")]
    pub announced: Option<AddressesMessage>,
}

/// From the controller. All parts up to one without `more` are one change, applied and acknowledged as one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaResponse {
    /// Counts the responses of a stream, from 1; the parts of one share it.
    #[prost(uint64, tag = "1")]
    pub nonce: u64,
    /// Number of the snapshot at this controller.
    #[prost(uint64, tag = "2")]
    pub system_version: u64,
    #[prost(message, repeated, tag = "3")]
    pub resources: Vec<ResourceMessage>,
    #[prost(string, repeated, tag = "4")]
    pub removed_resources: Vec<String>,
    #[prost(bool, tag = "5")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NamedVersionMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResourceErrorMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
    #[prost(string, tag = "3")]
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct ResourceMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub version: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

impl fmt::Debug for ResourceMessage {
    /// Never the body: it may hold a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMessage")
            .field("name", &self.name)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl From<&Resource> for ResourceMessage {
    fn from(resource: &Resource) -> Self {
        Self {
            name: resource.name.as_str().to_owned(),
            version: Bytes::copy_from_slice(resource.version.as_bytes()),
            body: resource.body.clone(),
        }
    }
}

impl TryFrom<ResourceMessage> for Resource {
    type Error = InvalidVersion;

    fn try_from(message: ResourceMessage) -> Result<Self, InvalidVersion> {
        let ResourceMessage { name, version, body } = message;
        Ok(Self {
            name: ResourceName::from(name),
            version: Version::try_from(&*version)?,
            body,
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PathReportsMessage {
    #[prost(message, repeated, tag = "1")]
    reports: Vec<DataPathReportMessage>,
}

impl From<&Vec<DataPathReport>> for PathReportsMessage {
    fn from(reports: &Vec<DataPathReport>) -> Self {
        Self {
            reports: reports.to_message(),
        }
    }
}

impl TryFrom<PathReportsMessage> for Vec<DataPathReport> {
    type Error = Malformed;

    fn try_from(message: PathReportsMessage) -> Result<Self, Malformed> {
        Wire::from_message(message.reports)
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AddressesMessage {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    addresses: Vec<Bytes>,
}

impl From<&Vec<IpAddr>> for AddressesMessage {
    fn from(addresses: &Vec<IpAddr>) -> Self {
        Self {
            addresses: addresses.to_message(),
        }
    }
}

impl TryFrom<AddressesMessage> for Vec<IpAddr> {
    type Error = Malformed;

    fn try_from(message: AddressesMessage) -> Result<Self, Malformed> {
        Wire::from_message(message.addresses)
    }
}
