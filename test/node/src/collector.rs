//! An OpenTelemetry collector of our own: it speaks OTLP as the real ones do, over gRPC or HTTP, and keeps what it gets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// How long spans may take to come: batches wait for a tenth of a second here.
const DEADLINE: Duration = Duration::from_secs(30);

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// Hexadecimal digits.
    pub trace: String,
    /// Hexadecimal digits.
    pub id: String,
    /// Hexadecimal digits; empty at the root of a trace.
    pub parent: String,
    /// What happened.
    pub name: String,
    /// On which side of a request or a queue.
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// `tracestate`.
    pub state: String,
    /// What went wrong, if something did.
    pub error: Option<String>,
    /// Its attributes, all as text.
    pub attributes: BTreeMap<String, String>,
    /// Those of whom it is of, among them `service.name`.
    pub resource: BTreeMap<String, String>,
    /// The library that it comes from, and its version.
    pub scope: (String, String),
    /// The names of its events, each with its attributes.
    pub events: Vec<(String, BTreeMap<String, String>)>,
    /// The ids of the spans that it has to do with, each with the link's attributes.
    pub links: Vec<(String, BTreeMap<String, String>)>,
    /// How many attributes, events and links were left out.
    pub dropped: [u32; 3],
    /// Whether its author says that it went well.
    pub ok: bool,
}

impl Span {
    /// An attribute; empty if it is not there.
    #[must_use]
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// An attribute of whom it is of; empty if it is not there.
    #[must_use]
    pub fn of(&self, key: &str) -> &str {
        self.resource.get(key).map_or("", String::as_str)
    }
}

/// What came, and with which headers.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<(Vec<Span>, Vec<String>)>>);

/// The collector; gone when dropped.
#[derive(Debug)]
pub struct Collector {
    /// What `OTEL_EXPORTER_OTLP_PROTOCOL` is to be.
    pub protocol: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    kept: Kept,
    serving: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// One that speaks gRPC.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn grpc() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            drop(server.serve_with_incoming(incoming).await);
        });
        Ok(Self {
            protocol: "grpc",
            address,
            kept,
            serving,
        })
    }

    /// One that speaks protobuf over HTTP.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn http() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let keeps = kept.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = keeps.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| post(kept.clone(), request));
                    let connection = http1::Builder::new();
                    drop(
                        connection
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Ok(Self {
            protocol: "http/protobuf",
            address,
            kept,
            serving,
        })
    }

    /// The variables by which a program finds it.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(self.protocol, self.address)
    }

    /// All that has come so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.kept.lock().0.clone()
    }

    /// The headers `x-tenant` that have come.
    #[must_use]
    pub fn tenants(&self) -> Vec<String> {
        self.kept.lock().1.clone()
    }

    /// Waits for what `look` finds in all that has come.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&[Span]) -> Option<T>) -> Result<T> {
        let looked = harness::until(what, DEADLINE, async || Ok(look(&self.kept.lock().0))).await;
        looked.with_context(|| {
            let names: Vec<_> = self
                .spans()
                .into_iter()
                .map(|span| (span.of("service.name").to_owned(), span.name))
                .collect();
            format!("there are {names:?}")
        })
    }
}

/// The variables by which a program finds a collector.
#[must_use]
pub fn variables(protocol: &str, address: SocketAddr) -> Vec<(String, String)> {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=harbour".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

impl Kept {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Span>, Vec<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, request: ExportTraceServiceRequest, tenant: Option<&str>) {
        let mut kept = self.lock();
        kept.1.extend(tenant.map(str::to_owned));
        for of in request.resource_spans {
            let resource = of.resource.map(|resource| resource.attributes);
            let resource = texts(resource.unwrap_or_default());
            let spans = of.scope_spans.into_iter().flat_map(|of| {
                let scope = of.scope.unwrap_or_default();
                let scope = (scope.name, scope.version);
                of.spans.into_iter().map(move |span| (span, scope.clone()))
            });
            for (span, scope) in spans {
                let kind = span.kind();
                let status = span.status.unwrap_or_default();
                let ok = status.code() == SpanStatus::Ok;
                kept.0.push(Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    name: span.name,
                    kind,
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    state: span.trace_state,
                    error: (status.code() == SpanStatus::Error).then_some(status.message),
                    attributes: texts(span.attributes),
                    resource: resource.clone(),
                    scope,
                    dropped: [
                        span.dropped_attributes_count,
                        span.dropped_events_count,
                        span.dropped_links_count,
                    ],
                    events: span
                        .events
                        .into_iter()
                        .map(|event| (event.name, texts(event.attributes)))
                        .collect(),
                    links: span
                        .links
                        .into_iter()
                        .map(|link| (hex(&link.span_id), texts(link.attributes)))
                        .collect(),
                    ok,
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let tenant = metadata.get("x-tenant").and_then(|it| it.to_str().ok());
        self.keep(message, tenant);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn post(
    kept: Kept,
    request: HttpRequest<Incoming>,
) -> Result<HttpResponse<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let message = body
        .ok()
        .and_then(|body| ExportTraceServiceRequest::decode(body).ok());
    let mut answer = HttpResponse::new(Full::default());
    match message.filter(|_| head.uri.path() == "/v1/traces") {
        Some(message) => {
            let tenant = head.headers.get("x-tenant");
            kept.keep(message, tenant.and_then(|it| it.to_str().ok()));
        }
        None => *answer.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::ArrayValue(array)) => {
            let values: Vec<_> = array.values.into_iter().map(Some).map(text).collect();
            format!("[{}]", values.join(","))
        }
        other => format!("{other:?}"),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes
        .into_iter()
        .map(|pair| (pair.key, text(pair.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
