use std::{
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http, tokio_stream::Stream},
    server::{Grpc, NamedService, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::{
    DeltaRequest, DeltaResponse, MESSAGE_BYTES_MAX,
    identity::{SignRequest, SignResponse},
};

/// What serves `pierhead.v1.Snapshots`.
pub trait Snapshots: Send + Sync + 'static {
    type Responses: Stream<Item = Result<DeltaResponse, Status>> + Send + 'static;

    /// One node's stream.
    ///
    /// # Errors
    /// When the node may not have one.
    fn delta(
        &self,
        request: Request<Streaming<DeltaRequest>>,
    ) -> impl Future<Output = Result<Response<Self::Responses>, Status>> + Send;
}

/// What serves `pierhead.v1.Identity`.
pub trait Identity: Send + Sync + 'static {
    /// A certificate for a node's key.
    ///
    /// # Errors
    /// When the token or the request is not good.
    fn sign(
        &self,
        request: Request<SignRequest>,
    ) -> impl Future<Output = Result<Response<SignResponse>, Status>> + Send;
}

/// Speaks gRPC for something that is [`Snapshots`].
#[derive(Debug)]
pub struct SnapshotsServer<T>(Arc<T>);

/// Speaks gRPC for something that is [`Identity`].
#[derive(Debug)]
pub struct IdentityServer<T>(Arc<T>);

macro_rules! servers {
    ($($server:ident: $service:literal;)*) => {$(
        impl<T> $server<T> {
            pub fn new(inner: Arc<T>) -> Self {
                Self(inner)
            }
        }

        impl<T> Clone for $server<T> {
            fn clone(&self) -> Self {
                Self(Arc::clone(&self.0))
            }
        }

        impl<T> NamedService for $server<T> {
            const NAME: &'static str = $service;
        }
    )*};
}

servers! {
    SnapshotsServer: "pierhead.v1.Snapshots";
    IdentityServer: "pierhead.v1.Identity";
}

impl<T, B> Service<http::Request<B>> for SnapshotsServer<T>
where
    T: Snapshots,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != super::DELTA {
                return Ok(unknown());
            }
            let mut grpc = Grpc::new(ProstCodec::<DeltaResponse, DeltaRequest>::default())
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(Delta(inner), request).await)
        })
    }
}

struct Delta<T>(Arc<T>);

impl<T: Snapshots> StreamingService<DeltaRequest> for Delta<T> {
    type Response = DeltaResponse;
    type ResponseStream = T::Responses;
    type Future = BoxFuture<Response<T::Responses>, Status>;

    fn call(&mut self, request: Request<Streaming<DeltaRequest>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.delta(request).await })
    }
}

impl<T, B> Service<http::Request<B>> for IdentityServer<T>
where
    T: Identity,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if request.uri().path() != super::SIGN {
                return Ok(unknown());
            }
            let mut grpc =
                Grpc::new(ProstCodec::<SignResponse, SignRequest>::default()).max_decoding_message_size(SIGN_BYTES_MAX);
            Ok(grpc.unary(Sign(inner), request).await)
        })
    }
}

/// The longest request for a certificate that is read, in bytes: whoever sends it has proved nothing yet.
const SIGN_BYTES_MAX: usize = 64 << 10;

struct Sign<T>(Arc<T>);

impl<T: Identity> UnaryService<SignRequest> for Sign<T> {
    type Response = SignResponse;
    type Future = BoxFuture<Response<SignResponse>, Status>;

    fn call(&mut self, request: Request<SignRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.sign(request).await })
    }
}

fn unknown() -> http::Response<Body> {
    Status::new(Code::Unimplemented, "this service has no such method").into_http()
}
