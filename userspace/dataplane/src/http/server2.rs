//! HTTP/2 connections of clients.
use super::{context::Context, io::Stream};
use std::rc::Rc;
pub(crate) async fn serve<S: Stream>(_io: S, _cx: Rc<Context>) {
    std::future::ready(()).await;
}
