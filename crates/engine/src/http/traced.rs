//! Requests as spans, by OpenTelemetry's semantic conventions for HTTP, and the headers by which a trace goes on.

use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use plan::trace::{Context, Kind, Span, SpanId, TRACEPARENT, TRACESTATE};
use wasmtime_wasi_http::Error;

use crate::http::egress::Answer;
use crate::trace::{Current, Tracer};

const PARENT: HeaderName = HeaderName::from_static(TRACEPARENT);
const STATE: HeaderName = HeaderName::from_static(TRACESTATE);

/// A request that the guest answers.
pub(super) struct Traced {
    current: Current,
    /// None where it is not kept.
    open: Option<Open>,
}

/// A span that is not over.
struct Open {
    span: Span,
}

impl Traced {
    /// Reads where the request comes from, and tells the guest where it is.
    pub(super) fn begin<B>(tracer: &Arc<Tracer>, request: &mut Request<B>) -> Self {
        let parent = read(request.headers());
        let context = tracer.below(parent.as_ref());
        write(request.headers_mut(), &context);
        let open = context
            .sampled
            .then(|| Open::of_server(&context, parent.map(|parent| parent.span), request));
        Self {
            current: Current::new(Arc::clone(tracer), context),
            open,
        }
    }

    pub(super) fn current(&self) -> Current {
        self.current.clone()
    }

    /// The answer is over; `complete` is false where the client went away before its end.
    pub(super) fn end(self, status: StatusCode, complete: bool) {
        let Some(mut open) = self.open else {
            return;
        };
        open.span.add("http.response.status_code", status.as_u16());
        if !complete {
            open.fails("aborted");
        } else if status.is_server_error() {
            open.fails(status.as_str());
        }
        self.current.tracer.take(open.over());
    }
}

impl Open {
    fn new(context: &Context, parent: Option<SpanId>, method: &Method, kind: Kind) -> Self {
        // Names are few: whoever sends requests must not make up as many as it likes.
        let known = known(method);
        let mut span = Span::begun(context, parent, known.unwrap_or("HTTP"), kind);
        span.add("http.request.method", known.unwrap_or("_OTHER"));
        if known.is_none() {
            span.add("http.request.method_original", method.as_str());
        }
        Self { span }
    }

    fn of_server<B>(context: &Context, parent: Option<SpanId>, request: &Request<B>) -> Self {
        let mut open = Self::new(context, parent, request.method(), Kind::Server);
        let span = &mut open.span;
        span.remote = parent.is_some();
        span.add("url.scheme", "http");
        // Without the query, in which secrets travel.
        span.add("url.path", request.uri().path());
        if let Some(version) = version(request.version()) {
            span.add("network.protocol.version", version);
        }
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        if let Some(authority) = request.uri().authority().or(host.as_ref()) {
            open.at(authority, 80);
        }
        open
    }

    fn of_client<B>(context: &Context, parent: SpanId, request: &Request<B>) -> Self {
        let mut open = Self::new(context, Some(parent), request.method(), Kind::Client);
        let uri = request.uri();
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        if let Some(authority) = uri.authority() {
            let scheme = if tls { "https" } else { "http" };
            let port = authority.port_u16().map(|port| format!(":{port}"));
            let (host, port) = (authority.host(), port.unwrap_or_default());
            // Neither with a password nor with the query.
            let full = format!("{scheme}://{host}{port}{}", uri.path());
            open.span.add("url.full", full);
            open.at(authority, if tls { 443 } else { 80 });
        }
        open
    }

    fn at(&mut self, authority: &Authority, port: u16) {
        self.span.add("server.address", authority.host());
        self.span
            .add("server.port", authority.port_u16().unwrap_or(port));
    }

    fn fails(&mut self, kind: &str) {
        self.span.add("error.type", kind);
        self.span.error = Some(String::new());
    }

    fn over(mut self) -> Span {
        self.span.over();
        self.span
    }
}

/// Sends a request of the guest's by `send`, as a part of what the guest does. A guest that says itself where its request
/// belongs is not contradicted.
pub(super) async fn sent<B, F: Future<Output = Result<Answer, Error>>>(
    current: Current,
    mut request: Request<B>,
    send: impl FnOnce(Request<B>) -> F,
) -> Result<Answer, Error> {
    let (tracer, context) = (&current.tracer, current.inner());
    let own = if context.sampled {
        context.child()
    } else {
        context.clone()
    };
    let open = context
        .sampled
        .then(|| Open::of_client(&own, context.span, &request));
    if !request.headers().contains_key(PARENT) {
        write(request.headers_mut(), &own);
    }
    let answer = send(request).await;
    if let Some(mut open) = open {
        match &answer {
            Ok((response, _)) => {
                let status = response.status();
                open.span.add("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    open.fails(status.as_str());
                }
            }
            Err(error) => open.fails(kind(error)),
        }
        tracer.take(open.over());
    }
    answer
}

/// Where a request says that it belongs: what breaks the rules, or is said twice, is not said.
fn read(headers: &HeaderMap) -> Option<Context> {
    let mut parents = headers.get_all(PARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    let states: Option<Vec<&str>> = headers
        .get_all(STATE)
        .iter()
        .map(|state| state.to_str().ok())
        .collect();
    let state = states.unwrap_or_default().join(",");
    Context::parse(parent.to_str().ok()?, Some(&state))
}

fn write(headers: &mut HeaderMap, context: &Context) {
    // Hexadecimal digits and dashes always have a form, and a state was checked.
    if let Ok(parent) = HeaderValue::from_str(&context.traceparent()) {
        headers.insert(PARENT, parent);
    }
    match HeaderValue::from_str(&context.state) {
        Ok(state) if !state.is_empty() => headers.insert(STATE, state),
        _ => headers.remove(STATE),
    };
}

/// The methods that the conventions name.
fn known(method: &Method) -> Option<&'static str> {
    [
        "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE",
    ]
    .into_iter()
    .find(|known| *known == method.as_str())
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Sorts of failures, few as the conventions ask.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::ConnectionTimeout | Error::ConnectionReadTimeout => "timeout",
        Error::ConnectionRefused => "connection_refused",
        Error::HttpRequestDenied | Error::DestinationIpProhibited => "denied",
        Error::DnsError { .. } => "name_not_resolved",
        Error::DestinationNotFound | Error::DestinationUnavailable => "unreachable",
        Error::Tls(_) => "tls",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt as _, Empty};
    use plan::trace::{Sampler, Tracing, Value};

    use super::*;
    use crate::trace::SpanSink;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Span>>>);

    impl SpanSink for Kept {
        fn take(&self, span: Span) {
            self.0.lock().expect("whole").push(span);
        }
    }

    impl Kept {
        fn tracer(&self, sampler: &str) -> Arc<Tracer> {
            let tracing = Tracing {
                sampler: Sampler::read(Some(sampler), None).expect("a sampler"),
                start: Context::new(true),
            };
            Arc::new(Tracer::new(tracing, Box::new(self.clone())))
        }

        fn all(&self) -> Vec<Span> {
            self.0.lock().expect("whole").clone()
        }
    }

    fn request(parents: &[&str]) -> Request<()> {
        let mut request = Request::get("/a/b?secret=1").header("host", "app.example:81");
        for parent in parents {
            request = request.header("traceparent", *parent);
        }
        request
            .header("tracestate", "a=1")
            .header("tracestate", "b=2")
            .body(())
            .expect("a request")
    }

    fn header<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    fn value<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
        let found = span.attributes.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    #[test]
    fn a_request_is_a_part_of_what_its_client_says() {
        let kept = Kept::default();
        let mut request = request(&[GIVEN]);
        let traced = Traced::begin(&kept.tracer("parentbased_always_on"), &mut request);
        traced.end(StatusCode::SERVICE_UNAVAILABLE, true);
        let spans = kept.all();
        let [span] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(span.trace.to_string(), &GIVEN[3..35]);
        assert_eq!(span.parent.expect("a parent").to_string(), &GIVEN[36..52]);
        assert!(span.remote && span.kind == Kind::Server && span.error.is_some());
        assert_eq!(
            (span.name.as_str(), span.state.as_str()),
            ("GET", "a=1,b=2")
        );
        for (key, expected) in [
            ("http.request.method", Value::from("GET")),
            ("http.response.status_code", Value::Int(503)),
            ("error.type", Value::from("503")),
            ("url.path", Value::from("/a/b")),
            ("url.scheme", Value::from("http")),
            ("server.address", Value::from("app.example")),
            ("server.port", Value::Int(81)),
            ("network.protocol.version", Value::from("1.1")),
        ] {
            assert_eq!(value(span, key), Some(&expected), "{key}");
        }
        // The guest hears of our span, not of the client's.
        let told = format!("00-{}-{}-01", span.trace, span.span);
        assert_eq!(header(&request, "traceparent"), Some(told.as_str()));
        assert_eq!(header(&request, "tracestate"), Some("a=1,b=2"));
    }

    #[test]
    fn without_a_valid_word_from_its_client_a_trace_begins() {
        for parents in [&[][..], &["00-0-0-01"], &[GIVEN, GIVEN]] {
            let kept = Kept::default();
            let mut request = request(parents);
            let traced = Traced::begin(&kept.tracer("always_on"), &mut request);
            traced.end(StatusCode::NOT_FOUND, false);
            let spans = kept.all();
            let [span] = &spans[..] else {
                panic!("{spans:?}")
            };
            assert!(span.parent.is_none() && !span.remote && span.error.is_some());
            assert_eq!(value(span, "error.type"), Some(&Value::from("aborted")));
            assert_ne!(span.trace.to_string(), &GIVEN[3..35]);
            // What belongs to a word that is not valid goes with it.
            assert_eq!(header(&request, "tracestate"), None);
        }
    }

    #[tokio::test]
    async fn what_is_not_kept_goes_through() {
        let kept = Kept::default();
        let tracer = kept.tracer("parentbased_always_off");
        let not = GIVEN.replace("-01", "-00");
        let mut given = request(&[&not]);
        let traced = Traced::begin(&tracer, &mut given);
        assert_eq!(header(&given, "traceparent"), Some(not.as_str()));
        let current = traced.current();
        traced.end(StatusCode::INTERNAL_SERVER_ERROR, true);
        let mut fresh = request(&[]);
        drop(Traced::begin(&tracer, &mut fresh));
        assert!(
            header(&fresh, "traceparent")
                .expect("a trace")
                .ends_with("-00")
        );
        let sent = send(current, Request::get("http://db:5/").body(()), 200).await;
        assert_eq!(sent, not);
        assert_eq!(kept.all(), []);
    }

    #[tokio::test]
    async fn what_the_guest_sends_is_a_part_of_its_request() {
        let kept = Kept::default();
        let traced = Traced::begin(&kept.tracer("always_on"), &mut request(&[GIVEN]));
        let request = Request::post("http://user:secret@db:5/x?key=1").body(());
        let told = send(traced.current(), request, 404).await;
        let own = Request::get("https://[::1]/")
            .header("traceparent", GIVEN)
            .body(());
        assert_eq!(send(traced.current(), own, 200).await, GIVEN);
        traced.end(StatusCode::OK, true);
        let spans = kept.all();
        let [post, get, server] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!(told, format!("00-{}-{}-01", post.trace, post.span));
        for client in [post, get] {
            assert!(client.kind == Kind::Client && !client.remote);
            assert_eq!(
                (client.parent, client.trace),
                (Some(server.span), server.trace)
            );
        }
        assert!(post.error.is_some() && get.error.is_none() && server.error.is_none());
        assert_eq!(value(post, "url.full"), Some(&Value::from("http://db:5/x")));
        assert_eq!(value(post, "server.port"), Some(&Value::Int(5)));
        assert_eq!(value(post, "error.type"), Some(&Value::from("404")));
        assert_eq!(value(get, "server.port"), Some(&Value::Int(443)));
    }

    /// Sends a request of a guest's; gives the `traceparent` that arrives.
    async fn send(current: Current, request: http::Result<Request<()>>, status: u16) -> String {
        let mut told = None;
        let answered = sent(current, request.expect("a request"), |request| {
            told = header(&request, "traceparent").map(str::to_owned);
            let body = Empty::<Bytes>::new().map_err(|never| match never {});
            let mut response = Response::new(body.boxed_unsync());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let io: crate::http::egress::Io = Box::new(async { Ok(()) });
            async { Ok((response, io)) }
        });
        assert!(answered.await.is_ok());
        told.expect("a traceparent")
    }
}
