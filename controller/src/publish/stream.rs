//! `pierhead.v1.Snapshots`: the tasks that carry streams.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use pierhead_protocol::{DeltaRequest, DeltaResponse, NOT_THE_LEADER, Snapshots, pace};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, watch},
    time::{self, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tracing::{debug, info, warn};

use super::{
    catalog::{Catalog, TooFarBehind},
    session::Session,
};
use crate::{
    identity::{Authority, Identity, NodeIdentity},
    nodes::{Membership, Registry},
};

/// Nodes that tell what they hold at once: after a restart of the controller all of them do, each with a list of all
/// resources. The others' lists wait in the network.
const JOINING_MAX: usize = 16;
/// A node that does not get on with its list makes room for others.
const JOINING_TIME: Duration = Duration::from_secs(30);

/// What all streams share.
pub(super) struct Streams {
    pub(super) identity: Identity,
    pub(super) registry: Registry,
    pub(super) catalog: Mutex<Catalog>,
    /// The catalog's version.
    pub(super) version: watch::Receiver<u64>,
    pub(super) is_leader: watch::Receiver<bool>,
    pub(super) joining: Semaphore,
}

impl Streams {
    pub(super) fn new(
        identity: Identity,
        registry: Registry,
        version: watch::Receiver<u64>,
        is_leader: watch::Receiver<bool>,
    ) -> Self {
        Self {
            identity,
            registry,
            catalog: Mutex::default(),
            version,
            is_leader,
            joining: Semaphore::new(JOINING_MAX),
        }
    }

    pub(super) fn catalog(&self) -> std::sync::MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who showed this certificate, and the whole of what was shown.
    fn authenticate(&self, request: &Request<Streaming<DeltaRequest>>) -> Result<(NodeIdentity, Shown), Status> {
        let Some(authority) = self.identity.authority.borrow().clone() else {
            return Err(Status::unavailable("the CA is not known yet: try again"));
        };
        let chain = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs)
            .unwrap_or_default();
        match authority.node(&chain, Timestamp::now()) {
            Ok(node) => Ok((node, chain)),
            Err(error) => Err(Status::unauthenticated(error.to_string())),
        }
    }
}

/// The service. A newtype, so that it can be shared with what feeds the catalog.
pub(super) struct Service(pub(super) Arc<Streams>);

impl Snapshots for Service {
    type Responses = ReceiverStream<Result<DeltaResponse, Status>>;

    async fn delta(&self, request: Request<Streaming<DeltaRequest>>) -> Result<Response<Self::Responses>, Status> {
        // One replica knows all nodes, and tells the truth about them; a node asks until it meets that one.
        if !*self.0.is_leader.borrow() {
            return Err(not_the_leader());
        }
        let (node, shown) = self.0.authenticate(&request).inspect_err(|status| {
            warn!(why = status.message(), "refused a stream");
        })?;
        let (responses, receiver) = mpsc::channel(1);
        let stream = Stream {
            shared: Arc::clone(&self.0),
            session: Session::new(&node.name),
            node,
            shown,
            requests: request.into_inner(),
            responses,
        };
        tokio::spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn not_the_leader() -> Status {
    Status::unavailable(NOT_THE_LEADER)
}

/// A node's certificate, with what came along.
type Shown = Arc<Vec<CertificateDer<'static>>>;

struct Stream {
    shared: Arc<Streams>,
    session: Session,
    node: NodeIdentity,
    shown: Shown,
    requests: Streaming<DeltaRequest>,
    responses: mpsc::Sender<Result<DeltaResponse, Status>>,
}

/// Why a stream ends.
enum End {
    /// The node left.
    Left,
    /// Its connection was closed, as when its process dies.
    Broken,
    /// We end it, and say why.
    Closed(Box<Status>),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Closed(status.into())
    }
}

impl Stream {
    async fn run(mut self) {
        let name = Arc::clone(&self.node.name);
        let responses = self.responses.clone();
        match self.serve().await {
            End::Left => info!(node = &*name, "a node's stream ended"),
            End::Broken => info!(node = &*name, "a node's connection broke"),
            End::Closed(status) => {
                warn!(node = &*name, why = status.message(), "closed a node's stream");
                // If there is no room the node does not listen either; it sees the end of the stream.
                let _ = responses.try_send(Err(*status));
            }
        }
    }

    async fn serve(&mut self) -> End {
        let end = async {
            let membership = self.join().await?;
            info!(node = &*self.node.name, "a node's stream began");
            let end = self.carry(&membership).await;
            if matches!(end, Err(End::Broken)) {
                tokio::spawn(membership.lapse(pace::RESTART));
            }
            end
        };
        match end.await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Hears what the node holds. Bounded in number and time.
    async fn join(&mut self) -> Result<Membership, End> {
        let shared = Arc::clone(&self.shared);
        let _permit: SemaphorePermit<'_> = shared.joining.acquire().await.map_err(|_| End::Left)?;
        let membership = self.shared.registry.join(&self.node.name, Timestamp::now());
        let whole = async {
            while self.session.is_joining() {
                self.receive(&membership).await?;
            }
            Ok(())
        };
        match time::timeout(JOINING_TIME, whole).await {
            Ok(result) => result.map(|()| membership),
            Err(_) => Err(Status::deadline_exceeded("the node did not say what it holds").into()),
        }
    }

    async fn carry(&mut self, membership: &Membership) -> Result<std::convert::Infallible, End> {
        let mut version = self.shared.version.clone();
        let mut authority = self.shared.identity.authority.clone();
        let mut is_leader = self.shared.is_leader.clone();
        let responses = self.responses.clone();
        let expiry = time::sleep_until(self.expiry());
        tokio::pin!(expiry);
        loop {
            version.borrow_and_update();
            let batch = self.session.next(&self.shared.catalog());
            if let Some(batch) = batch.map_err(|TooFarBehind| Status::aborted("too far behind: connect again"))? {
                debug!(node = &*self.node.name, resources = batch.resources(), "sending");
                for response in batch {
                    responses.send(Ok(response)).await.map_err(|_| End::Broken)?;
                }
            }
            tokio::select! {
                // In this order: of a connection that ends, what is heard tells how.
                biased;
                () = &mut expiry => {
                    return Err(Status::unauthenticated("the certificate has ended: ask for a new one").into());
                }
                heard = self.receive(membership) => heard?,
                changed = version.changed() => changed.map_err(|_| Status::unavailable("the controller stops"))?,
                changed = authority.changed() => {
                    changed.map_err(|_| Status::unavailable("the controller stops"))?;
                    let now = authority.borrow_and_update().clone();
                    let is_good = |ca: Arc<Authority>| ca.node(&self.shown, Timestamp::now()).is_ok();
                    if !now.is_some_and(is_good) {
                        return Err(Status::unauthenticated("the CA was replaced: ask for a new certificate").into());
                    }
                }
                _ = is_leader.wait_for(|leads| !leads) => return Err(not_the_leader().into()),
                () = responses.closed() => return Err(End::Left),
            }
        }
    }

    async fn receive(&mut self, membership: &Membership) -> Result<(), End> {
        let request = match self.requests.message().await {
            Ok(Some(request)) => request,
            // An orderly end, or a stream that the node cancelled; or what the HTTP/2 server ends because nobody answers its
            // pings.
            Ok(None) => return Err(End::Left),
            Err(status) if status.code() == Code::Cancelled => return Err(End::Left),
            Err(_) => return Err(End::Broken),
        };
        let said = match self.session.receive(request) {
            Ok(said) => said,
            Err(error) => return Err(Status::invalid_argument(error.to_string()).into()),
        };
        if let Some(why) = said.rejection() {
            warn!(node = &*self.node.name, why, "a node rejected a snapshot");
        }
        membership.update(Timestamp::now(), |state| said.apply(state));
        Ok(())
    }

    fn expiry(&self) -> Instant {
        let left = self.node.not_after.duration_since(Timestamp::now());
        Instant::now() + Duration::try_from(left).unwrap_or_default()
    }
}
