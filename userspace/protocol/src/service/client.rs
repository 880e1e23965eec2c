use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::{Body as HttpBody, Bytes, StdError, http::uri::PathAndQuery, tokio_stream::Stream},
};
use tonic_prost::ProstCodec;

use crate::{
    DeltaRequest, DeltaResponse, MESSAGE_BYTES_MAX,
    identity::{SignRequest, SignResponse},
};

/// Client of `pierhead.v1.Snapshots`.
#[derive(Clone, Debug)]
pub struct SnapshotsClient<T> {
    grpc: Grpc<T>,
}

impl<T> SnapshotsClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(channel: T) -> Self {
        Self {
            grpc: Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// Opens the stream; `requests` begins with those of [`Client::connect`](crate::Client::connect).
    ///
    /// # Errors
    /// When the controller cannot be reached, or refuses.
    pub async fn delta(
        &mut self,
        requests: impl Stream<Item = DeltaRequest> + Send + 'static,
    ) -> Result<Response<Streaming<DeltaResponse>>, Status> {
        ready(&mut self.grpc).await?;
        let codec = ProstCodec::<DeltaRequest, DeltaResponse>::default();
        let path = PathAndQuery::from_static(super::DELTA);
        self.grpc.streaming(Request::new(requests), path, codec).await
    }
}

/// Client of `pierhead.v1.Identity`.
#[derive(Clone, Debug)]
pub struct IdentityClient<T> {
    grpc: Grpc<T>,
}

impl<T> IdentityClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(channel: T) -> Self {
        Self {
            grpc: Grpc::new(channel),
        }
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    /// When the controller cannot be reached, or does not believe the token.
    pub async fn sign(&mut self, request: SignRequest) -> Result<SignResponse, Status> {
        ready(&mut self.grpc).await?;
        let codec = ProstCodec::<SignRequest, SignResponse>::default();
        let path = PathAndQuery::from_static(super::SIGN);
        let response = self.grpc.unary(Request::new(request), path, codec).await?;
        Ok(response.into_inner())
    }
}

async fn ready<T>(grpc: &mut Grpc<T>) -> Result<(), Status>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
{
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(format!("the controller cannot be reached: {}", error.into())))
}
