//! Spans as OpenTelemetry has them, on their way to the collector.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use plan::trace::{Kind, Service, Span};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::own::{self, Parts, attributes};
use super::variables::{Protocol, Variables};

/// How supervisors are called, unless the environment says.
const NAME: &str = "sampan";

/// Sends spans to the collector.
#[derive(Debug)]
pub(super) struct Exporter {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    named: bool,
    /// The node's name in Kubernetes.
    node: Option<String>,
}

impl Exporter {
    pub(super) fn new(variables: &Variables, node: Option<&str>) -> Result<Self> {
        let exporter = match variables.protocol {
            Protocol::Grpc => over_grpc(variables),
            Protocol::HttpProtobuf => over_http(variables),
        };
        Ok(Self {
            exporter: exporter.context("prepare the exporter")?,
            scope: InstrumentationScope::builder(NAME)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            named: variables.named,
            node: node.map(str::to_owned),
        })
    }

    /// Sends spans of one service.
    ///
    /// # Errors
    /// Why the collector did not take them.
    pub(super) async fn export(
        &mut self,
        of: Option<&Service>,
        spans: Vec<Span>,
    ) -> Result<(), String> {
        let resource = self.resource(of);
        self.exporter.set_resource(&resource);
        let spans = spans.into_iter().map(|span| self.data(span)).collect();
        let exported = self.exporter.export(spans).await;
        exported.map_err(|error| error.to_string())
    }

    /// Whose the spans are, with what the environment says (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`).
    fn resource(&self, of: Option<&Service>) -> Resource {
        let mut resource = Resource::builder();
        if let Some(node) = &self.node {
            resource = resource.with_attribute(KeyValue::new("k8s.node.name", node.clone()));
        }
        match of {
            // The guest's own name, and not the one of this program.
            Some(service) => resource
                .with_attributes(
                    service
                        .attributes
                        .iter()
                        .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
                )
                .with_service_name(service.name.clone()),
            None if self.named => resource,
            None => resource.with_service_name(NAME),
        }
        .build()
    }

    fn data(&self, mut span: Span) -> SpanData {
        let trace = TraceId::from(span.trace.number());
        let state: TraceState = span.state.parse().unwrap_or_default();
        let id = SpanId::from(span.span.number());
        // A guest's library says more, and speaks for itself.
        let Parts {
            kind: role,
            scope,
            ok,
            attributes: more,
            events,
            links,
            dropped,
        } = match span.own.take() {
            Some(own) => own::parts(*own),
            None => Parts::of_ours(&self.scope),
        };
        let mut attributes = attributes(span.attributes);
        attributes.extend(more);
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, state),
            parent_span_id: span
                .parent
                .map_or(SpanId::INVALID, |parent| SpanId::from(parent.number())),
            parent_span_is_remote: span.remote,
            span_kind: role.unwrap_or(match span.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
            }),
            name: span.name.into(),
            start_time: time(span.start),
            end_time: time(span.end),
            attributes,
            dropped_attributes_count: dropped,
            events,
            links,
            status: match span.error {
                Some(why) => Status::error(why),
                None if ok => Status::Ok,
                None => Status::Unset,
            },
            instrumentation_scope: scope,
        }
    }
}

pub(super) fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

fn over_grpc(variables: &Variables) -> Result<SpanExporter> {
    let mut builder = SpanExporter::builder().with_tonic();
    if variables.endpoint.starts_with("https:") {
        let mut tls = ClientTlsConfig::new().with_webpki_roots();
        if let Some(path) = &variables.certificate {
            let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        }
        builder = builder.with_tls_config(tls);
    }
    Ok(builder.build()?)
}

fn over_http(variables: &Variables) -> Result<SpanExporter> {
    let mut roots = rustls::RootCertStore::empty();
    match &variables.certificate {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let read = || format!("read {}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
                roots
                    .add(certificate.with_context(read)?)
                    .with_context(read)?;
            }
            ensure!(
                !roots.is_empty(),
                "{}: there is no certificate",
                path.display()
            );
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let client = HyperClient::new(connector, variables.timeout, None);
    Ok(SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .build()?)
}
