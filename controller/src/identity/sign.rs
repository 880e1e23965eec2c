//! `pierhead.v1.Identity`: a certificate for a token.

use jiff::Timestamp;
use pierhead_protocol::{
    Identity as IdentityService,
    identity::{SignRequest, SignResponse},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::{Identity, ReviewError};

/// Reviews in flight. Whoever asks has proved nothing yet, and each review is a request to the API server.
const REVIEWS_MAX: usize = 32;

pub(crate) struct Signer {
    identity: Identity,
    reviews: Semaphore,
}

impl Signer {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            reviews: Semaphore::new(REVIEWS_MAX),
        }
    }

    async fn answer(&self, request: SignRequest) -> Result<(SignResponse, String), Status> {
        let SignRequest { csr_der, token } = request;
        let reviewed = {
            let Ok(_permit) = self.reviews.try_acquire() else {
                return Err(Status::resource_exhausted("too many nodes ask at once: try again"));
            };
            self.identity
                .reviewer
                .review(&token)
                .await
                .map_err(|error| match error {
                    ReviewError::Refused(_) => Status::unauthenticated(error.to_string()),
                    ReviewError::Unavailable(_) => Status::unavailable(error.to_string()),
                })?
        };
        if reviewed.user != self.identity.node_user {
            let why = format!("{} is not {}", reviewed.user, self.identity.node_user);
            return Err(Status::permission_denied(why));
        }
        let Some(node) = reviewed.node.filter(|node| !node.is_empty()) else {
            let why = "the token names no node: it must be bound to a pod, by Kubernetes 1.30 or later";
            return Err(Status::permission_denied(why));
        };
        let Some(authority) = self.identity.authority.borrow().clone() else {
            return Err(Status::unavailable("the CA is not known yet: try again"));
        };
        let certificate = authority
            .sign_node(&csr_der, &node, Timestamp::now())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let response = SignResponse {
            chain: vec![certificate.to_vec().into()],
            ca: authority.certificate().to_vec().into(),
        };
        Ok((response, node))
    }
}

impl IdentityService for Signer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        match self.answer(request.into_inner()).await {
            Ok((response, node)) => {
                info!(node, "signed a node's certificate");
                Ok(Response::new(response))
            }
            Err(status) => {
                warn!(code = ?status.code(), why = status.message(), "refused a node's certificate");
                Err(status)
            }
        }
    }
}
