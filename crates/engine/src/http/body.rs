//! Bodies on their way, with somebody who watches.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::counts::Counts;
use crate::http::access::Entry;
use crate::http::call::Call;
use crate::http::traced::Traced;

/// What ends with a request: its turn, its span, its line in the access log, and what is counted of it.
pub(super) struct Attendance {
    pub(super) call: Arc<Call>,
    pub(super) entry: Option<Entry>,
    pub(super) traced: Option<Traced>,
    pub(super) turn: Option<OwnedSemaphorePermit>,
    /// Bytes of the answer's body that were handed over.
    pub(super) bytes: u64,
    pub(super) status: StatusCode,
    /// Bytes that the answer promises.
    pub(super) promised: Option<u64>,
    pub(super) complete: bool,
    pub(super) counts: Arc<Counts>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        // Who knows the length does not ask for an end.
        let complete = self.complete || self.promised == Some(self.bytes);
        if complete {
            self.call.answered();
        } else {
            // Nobody takes the rest.
            self.call.abandon();
        }
        self.counts
            .answered(self.status.as_u16(), self.call.arrived.elapsed());
        if let Some(entry) = &self.entry {
            entry.write(&self.call, self.status, self.bytes, complete);
        }
        if let Some(traced) = self.traced.take() {
            traced.end(self.status, complete);
        }
        self.turn = None;
    }
}

/// An answer, and who watches it on its way; nobody where it is not the one that was asked for.
pub(super) struct AnswerBody {
    pub(super) body: WasiBody,
    pub(super) attendance: Option<Attendance>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(attendance) = &mut this.attendance {
            match &frame {
                None => attendance.complete = true,
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        attendance.bytes += data.len() as u64;
                    }
                    // hyper does not ask again when it knows the length.
                    attendance.complete |= this.body.is_end_stream();
                }
                Some(Err(_)) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that may not be longer than this.
pub(super) struct Bounded {
    pub(super) body: WasiBody,
    pub(super) left: u64,
    /// Told when it is.
    pub(super) call: Arc<Call>,
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if length > this.left {
                this.call.exceeded.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(Error::HttpRequestBodySize(None))));
            }
            this.left -= length;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
