use std::fmt;

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::ResourceName;

/// What a resource's content is: the first 16 bytes of the SHA-256 of its body. Equal bodies have equal versions whoever
/// made them, so that a node that changes from one controller to another is sent only what differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u8; 16]);

/// Bytes that are no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version has 16 bytes, not {0}")]
pub struct InvalidVersion(pub usize);

impl Version {
    pub fn of(body: &[u8]) -> Self {
        let mut version = [0; 16];
        let hash = digest::digest(&digest::SHA256, body);
        for (to, from) in version.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Self(version)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Version {
    type Error = InvalidVersion;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidVersion> {
        bytes.try_into().map(Self).map_err(|_| InvalidVersion(bytes.len()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One named part of a snapshot, encoded. Cheap to clone: the body is shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: ResourceName,
    pub version: Version,
    /// A protobuf message that `name`'s kind decides. May hold a private key.
    pub body: Bytes,
}

impl Resource {
    pub(crate) fn new(name: ResourceName, body: Bytes) -> Self {
        let version = Version::of(&body);
        Self { name, version, body }
    }
}

impl fmt::Debug for Resource {
    /// Never the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("bytes", &self.body.len())
            .finish()
    }
}
