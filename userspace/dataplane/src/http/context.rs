//! What all requests of a connection share.

use std::rc::Rc;

use pierhead_http1::Headers;
use pierhead_model::Limits;

use super::{local::Local, policy::forwarded};
use crate::{conn::Conn, observe::ListenerCells, runtime::ListenerRuntime};

pub(crate) struct Context {
    pub(crate) conn: Conn,
    pub(crate) https: bool,
    /// Lines about the client, the same for each request.
    pub(crate) forwarded: Headers,
    /// In force until a request has chosen its listener.
    pub(crate) limits: Limits,
}

impl Context {
    pub(crate) fn new(conn: Conn) -> Self {
        let https = conn.tls.is_some();
        let listener = match &conn.tls {
            Some(tls) => Some(&tls.listener),
            None => conn.bind.first(),
        };
        Self {
            https,
            forwarded: forwarded::constant_lines(conn.peer, conn.local, https),
            limits: listener.map(|listener| listener.limits().clone()).unwrap_or_default(),
            conn,
        }
    }

    /// The listener that answers for the connection as a whole.
    pub(crate) fn listener(&self) -> Option<&ListenerRuntime> {
        match &self.conn.tls {
            Some(tls) => Some(&tls.listener),
            None => self.conn.bind.first().map(AsRef::as_ref),
        }
    }

    pub(crate) fn cells(&self, count: impl FnOnce(&ListenerCells)) {
        if let Some(listener) = self.listener() {
            count(listener.cells.of(self.conn.worker.number));
        }
    }

    pub(crate) fn local(&self) -> &Rc<Local> {
        &self.conn.worker.http
    }

    /// What the codec must hold a head to.
    pub(crate) fn head_limits(&self) -> pierhead_http1::Limits {
        // Start line and fields must fit a read buffer together.
        const LINE: usize = 8 * 1024;
        const FIELDS: usize = super::buffer::SIZE - LINE - 2;
        let bytes = self.limits.header_bytes as usize;
        pierhead_http1::Limits {
            start_line: bytes.clamp(512, LINE),
            fields_bytes: bytes.clamp(512, FIELDS),
            fields: self.limits.header_count as usize,
        }
    }
}
