//! The border: Kubernetes objects that both APIs name, parsed into the model's values.

mod certificate;
mod endpoints;
mod service;

pub use certificate::{CaSource, CertificateFault, CertificateFaultKind};
pub(crate) use endpoints::{BySlices, SliceIndex};
pub use service::{BackendFault, Carrier, PortRef, Resolved, ServicePort, ServiceRef, TlsChoice};
