use wasmtime_wasi_http::handler::{ProxyHandler, ProxyPre, Request, Response};

use crate::http::single::Single;
use crate::http::worker::{Ticket, Workers};

/// The instances that answer, of either line of WASI.
pub(super) enum Instances {
    /// Each answers one request at a time.
    Single(Single),
    /// Each may answer several.
    Several(ProxyHandler<Workers>),
}

impl Instances {
    pub(super) fn new(workers: Workers) -> Self {
        match workers.pre {
            ProxyPre::P2(_) => Self::Single(Single::new(workers)),
            ProxyPre::P3(_) => Self::Several(ProxyHandler::new(workers)),
        }
    }

    /// Has one of them answer; it is made where none is free.
    ///
    /// # Errors
    ///
    /// Those of `ProxyHandler::handle`.
    pub(super) async fn answer(
        &self,
        ticket: Ticket,
        request: Request,
    ) -> wasmtime::Result<Response> {
        match self {
            Self::Single(instances) => instances.handle(ticket, request).await,
            Self::Several(instances) => instances.handle(ticket, request).await,
        }
    }
}
