//! What is done to requests and responses, one policy per file. Pure functions over heads and configuration: when they
//! run is decided by the pipeline alone.

pub(super) mod cors;
pub(super) mod ext_authz;
pub(super) mod external_auth;
pub(super) mod forwarded;
pub(super) mod headers;
pub(super) mod host;
pub(super) mod mirror;
pub(super) mod path;
pub(super) mod redirect;
pub(super) mod retry;
pub(super) mod rewrite;
pub(super) mod stream;
pub(super) mod timeouts;
