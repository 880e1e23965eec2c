//! What is seen from outside: metric cells, the Prometheus text, the access log.
//!
//! A cell has one writer, its worker; a scrape sums the cells of all workers. Series exist per listener and per backend
//! service, never per endpoint or per client, so their number mirrors what the user wrote.

mod cells;
mod exchange;
mod log;
mod prometheus;
mod registry;

pub(crate) use cells::{BackendCells, Counter, Histogram, ListenerCells, PerWorker, WorkerCells};
pub(crate) use exchange::{Exchange, Reason, RequestFacts};
pub(crate) use log::{LogBuffer, LogSender};
pub(crate) use prometheus::text;
pub(crate) use registry::Registry;
