use std::{future::Future, pin::Pin};

/// Says whose a token is.
pub trait Reviewer: Send + Sync {
    fn review<'a>(&'a self, token: &'a str)
    -> Pin<Box<dyn Future<Output = Result<Reviewed, ReviewError>> + Send + 'a>>;
}

/// A token that is good for our audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewed {
    /// `system:serviceaccount:<namespace>:<name>`
    pub user: String,
    /// The node of the pod to which the token is bound; Kubernetes says so since 1.30.
    pub node: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// The token is not good, and will not be.
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// Nobody can tell at present.
    #[error("the API server cannot review tokens: {0}")]
    Unavailable(String),
}
