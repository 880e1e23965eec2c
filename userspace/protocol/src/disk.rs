//! A snapshot as the bytes of a file: what a node serves after a restart, while its controller is away. It holds private
//! keys: whoever writes it keeps it from others.
//!
//! Layout: the magic, the format's version (u32, big endian), the SHA-256 of the rest, and the rest: one protobuf message
//! with all resources.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use pierhead_model::Snapshot;
use prost::Message as _;

use crate::{Candidate, Resource, ResourceMessage, ResourceName, assemble::Assembly, encode::Encoder};

const MAGIC: &[u8; 8] = b"pierhead";
const FORMAT: u32 = 1;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>() + HASH_BYTES;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("it is no snapshot of Pierhead")]
    Foreign,
    #[error("its format is {0}, and this version reads only {FORMAT}")]
    Format(u32),
    #[error("it is damaged: its checksum does not fit")]
    Damaged,
    #[error("it is damaged: {0}")]
    Message(#[from] prost::DecodeError),
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileMessage {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceMessage>,
}

/// The bytes of a file with this snapshot.
pub fn encode(snapshot: &Arc<Snapshot>) -> Vec<u8> {
    let resources = Encoder::default().encode(snapshot).changed;
    let message = FileMessage {
        // Versions are those of the bodies: no need to write them.
        resources: resources
            .iter()
            .map(|resource| ResourceMessage {
                version: Bytes::new(),
                ..resource.into()
            })
            .collect(),
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + message.encoded_len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_be_bytes());
    bytes.extend_from_slice(&[0; HASH_BYTES]);
    message.encode_raw(&mut bytes);
    let (head, rest) = bytes.split_at_mut(HEAD_BYTES);
    let hash = digest::digest(&digest::SHA256, rest);
    if let Some(place) = head.last_chunk_mut::<HASH_BYTES>() {
        place.copy_from_slice(hash.as_ref());
    }
    bytes
}

/// The snapshot in a file. Resources that this version cannot use (the file may be of a newer one) are left out and named
/// with the reason in [`Candidate::held_back`].
///
/// # Errors
/// When these are not the bytes that [`encode`] made, or of another format.
pub fn decode(bytes: &[u8]) -> Result<Candidate, Unusable> {
    let (magic, rest) = bytes.split_first_chunk::<{ MAGIC.len() }>().ok_or(Unusable::Foreign)?;
    if magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    let (format, rest) = rest.split_first_chunk().ok_or(Unusable::Damaged)?;
    match u32::from_be_bytes(*format) {
        FORMAT => {}
        other => return Err(Unusable::Format(other)),
    }
    let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>().ok_or(Unusable::Damaged)?;
    if digest::digest(&digest::SHA256, rest).as_ref() != hash {
        return Err(Unusable::Damaged);
    }
    let mut assembly = Assembly::default();
    for ResourceMessage { name, version: _, body } in FileMessage::decode(rest)?.resources {
        assembly.put(Resource::new(ResourceName::from(name), body));
    }
    Ok(assembly.candidate())
}
