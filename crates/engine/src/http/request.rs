//! A request on its way through the server: taken, bounded, handed to an instance, answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::stream;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use plan::Serving;
use plan::numbers::Count;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use wasmtime_wasi_http::handler::{InstantiationError, TrapOrPanicError};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::command::say;
use crate::counts::Counts;
use crate::ending::{judge, line};
use crate::http::access::{self, Entry, REQUEST_ID};
use crate::http::body::{AnswerBody, Attendance, Bounded};
use crate::http::call::Call;
use crate::http::instances::Instances;
use crate::http::reuse::Reuse;
use crate::http::traced::Traced;
use crate::http::worker::{Ticket, stopped};
use crate::limits::Budget;
use crate::trace::Tracer;

/// How long the body of an answer is read that nobody gets, because it answers HEAD: the guest should see it taken.
const DISCARD: Duration = Duration::from_secs(10);

/// What the connections share.
pub(super) struct Server {
    instances: Instances,
    budget: Arc<Budget>,
    serving: Serving,
    tracer: Option<Arc<Tracer>>,
    reuse: Arc<Reuse>,
    /// A permit per request that a guest answers.
    turns: Arc<Semaphore>,
    /// A permit per request that waits for its turn.
    queue: Semaphore,
    /// Becomes true when the server ends.
    stopping: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

impl Server {
    pub(super) fn new(
        instances: Instances,
        budget: Arc<Budget>,
        serving: Serving,
        tracer: Option<Arc<Tracer>>,
        reuse: Arc<Reuse>,
        stopping: watch::Receiver<bool>,
        counts: Arc<Counts>,
    ) -> Self {
        let most = serving.max_requests as usize;
        Self {
            instances,
            budget,
            serving,
            tracer,
            reuse,
            turns: Arc::new(Semaphore::new(most)),
            queue: Semaphore::new(most),
            stopping,
            counts,
        }
    }

    /// Whether the server ends.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Until the server ends.
    pub(super) async fn stopping(&self) {
        stopped(self.stopping.clone()).await;
    }

    pub(super) async fn answer(&self, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let arrived = Instant::now();
        self.counts.one(Count::Asked);
        let Serving {
            access_log,
            log_request_id,
            request_timeout,
            ..
        } = self.serving;
        let id = (access_log || log_request_id).then(|| {
            let id = access::id(request.headers());
            if let Ok(value) = HeaderValue::from_str(&id) {
                request.headers_mut().insert(REQUEST_ID, value);
            }
            id
        });
        let traced = self
            .tracer
            .as_ref()
            .map(|tracer| Traced::begin(tracer, &mut request));
        let call = Call::new(id, arrived, request_timeout.map(|time| arrived + time));
        // If this future is dropped, the client is gone; the attendance notices.
        let mut attendance = Attendance {
            entry: access_log.then(|| Entry {
                time: SystemTime::now(),
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
            }),
            call,
            traced,
            turn: None,
            bytes: 0,
            status: StatusCode::from_u16(499).unwrap_or_default(),
            promised: None,
            complete: false,
            counts: Arc::clone(&self.counts),
        };
        let bodiless = *request.method() == Method::HEAD;
        let response = self.respond(request, &mut attendance).await;
        attendance.status = response.status();
        let (parts, body) = response.into_parts();
        let bodiless =
            bodiless || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        attendance.promised = length.or(body.size_hint().exact()).filter(|_| !bodiless);
        let mut body = AnswerBody {
            body,
            attendance: Some(attendance),
        };
        if bodiless {
            tokio::spawn(discard(body));
            // Of unknown length, as the answer to GET may be.
            let nothing = StreamBody::new(stream::empty::<Result<Frame<Bytes>, Error>>());
            body = AnswerBody {
                body: nothing.boxed_unsync(),
                attendance: None,
            };
        }
        Response::from_parts(parts, body)
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        attendance: &mut Attendance,
    ) -> Response<WasiBody> {
        let call = Arc::clone(&attendance.call);
        let (method, target) = (request.method().clone(), request.uri().clone());
        let asked = || format!("{method} {}", target.path());
        let request = match self.for_guest(request, &call) {
            Ok(request) => request,
            Err((status, reason)) => return plain(status, reason),
        };
        match self.turn(&call).await {
            Some(turn) => attendance.turn = Some(turn),
            None => {
                let mut response = plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many requests at once\n",
                );
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return response;
            }
        }
        let (obituary, end) = oneshot::channel();
        let ticket = Ticket {
            call: Arc::clone(&call),
            obituary,
            current: attendance.traced.as_ref().map(Traced::current),
        };
        let handled = tokio::select! {
            biased;
            handled = self.instances.answer(ticket, request) => Some(handled),
            () = call.late() => None,
        };
        if call.exceeded.load(Ordering::Acquire) {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
        }
        let error = match handled {
            Some(Ok(response)) => {
                if call.reused.load(Ordering::Relaxed) {
                    self.reuse.worked();
                }
                return response;
            }
            Some(Err(error)) if !call.is_late() => error,
            _ => {
                if !call.told.swap(true, Ordering::Relaxed) {
                    let time = self.serving.request_timeout.unwrap_or_default();
                    say(&line(&format!(
                        "out of time: the request took longer than {time:?} ({})",
                        asked()
                    )));
                }
                return plain(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the application took too long\n",
                );
            }
        };
        let mut reason = self.reason(&error);
        // The call was cut off, by a trap that only the instance knows.
        if is_vague(&error)
            && let Ok(Some(known)) = end.await
        {
            reason = known;
        }
        say(&line(&format!("{reason} ({})", asked())));
        if call.reused.load(Ordering::Relaxed) {
            self.reuse.failed();
        }
        plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the application failed\n",
        )
    }

    /// Waits for the guest to have a hand free; not at all where too many wait already, and no longer than the request
    /// has time.
    async fn turn(&self, call: &Call) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let _place = self.queue.try_acquire().ok()?;
        tokio::select! {
            turn = Arc::clone(&self.turns).acquire_owned() => turn.ok(),
            () = call.late() => None,
        }
    }

    /// The request as WASI has it: with scheme and authority, wherever the client wrote them, and no longer than it may
    /// be.
    fn for_guest(
        &self,
        request: Request<Incoming>,
        call: &Arc<Call>,
    ) -> Result<Request<WasiBody>, (StatusCode, &'static str)> {
        let wrong = |reason: &'static str| (StatusCode::BAD_REQUEST, reason);
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        if uri.authority.is_none() {
            let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
            let authority = host.ok_or(wrong("a request needs a host\n"))?;
            uri.authority =
                Some(Authority::try_from(authority).map_err(|_| wrong("the host is not valid\n"))?);
        }
        uri.scheme = Some(Scheme::HTTP);
        if uri.path_and_query.is_none() {
            uri.path_and_query = Some(PathAndQuery::from_static("/"));
        }
        parts.uri = Uri::from_parts(uri).map_err(|_| wrong("the request target is not valid\n"))?;
        let promised = body.size_hint().lower();
        let body = body.map_err(Error::from).boxed_unsync();
        let body = match self.serving.max_body {
            None => body,
            // Said before the client sends it, if it asks (Expect: 100-continue).
            Some(most) if promised > most => {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE));
            }
            Some(left) => Bounded {
                body,
                left,
                call: Arc::clone(call),
            }
            .boxed_unsync(),
        };
        Ok(Request::from_parts(parts, body))
    }

    fn reason(&self, error: &wasmtime::Error) -> String {
        let judged = match error.downcast_ref::<InstantiationError<Ticket>>() {
            // No instance was there that could have counted it.
            Some(failed) => judge(&failed.error, &self.budget).inspect_err(|failure| {
                if let Some(trap) = failure.trap {
                    self.counts.trapped(trap);
                }
            }),
            None => judge(error, &self.budget),
        };
        match judged {
            Ok(code) => format!("the guest exited with code {code} instead of answering"),
            Err(failure) => failure.reason,
        }
    }
}

const TOO_LARGE: &str = "the request's body is too large\n";

/// Reads a body that nobody gets to its end.
async fn discard(mut body: AnswerBody) {
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD, read).await;
}

/// Whether the error says only that no answer came.
fn is_vague(error: &wasmtime::Error) -> bool {
    error.is::<TrapOrPanicError>()
        || error
            .root_cause()
            .to_string()
            .starts_with("guest never invoked")
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
