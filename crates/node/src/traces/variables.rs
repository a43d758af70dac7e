//! OpenTelemetry's environment variables that are decided here. The others (endpoint, headers, timeout, compression) are read
//! by the exporter's library, by the same rules.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use plan::trace::Sampler;

/// What they say.
#[derive(Debug)]
pub(super) struct Variables {
    /// Where spans go, for the log.
    pub(super) endpoint: String,
    pub(super) protocol: Protocol,
    /// Certificates (PEM) by which the collector is known.
    pub(super) certificate: Option<PathBuf>,
    pub(super) timeout: Duration,
    pub(super) sampler: Sampler,
    /// Spans that wait to be exported.
    pub(super) queue: usize,
    /// Spans that are exported together.
    pub(super) batch: usize,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// Whether they say how the supervisors are called.
    pub(super) named: bool,
}

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    HttpProtobuf,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        })
    }
}

impl Variables {
    /// Reads them; `None` where nothing is to be traced. An empty variable is none.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        // What is for traces counts before what is for all; whoever is wrong is told by its name.
        let named = |what: &str| {
            let traces = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
            let all = format!("OTEL_EXPORTER_OTLP_{what}");
            [traces, all].into_iter().find_map(|name| {
                let value = get(&name)?;
                Some((name, value))
            })
        };
        let either = |what: &str| named(what).map(|(_, value)| value);
        if get("OTEL_SDK_DISABLED").is_some_and(|is| is.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                bail!("OTEL_TRACES_EXPORTER: there is no exporter `{other}` here: otlp or none")
            }
        }
        let Some(endpoint) = either("ENDPOINT") else {
            return Ok(None);
        };
        let protocol = match named("PROTOCOL") {
            None => Protocol::HttpProtobuf,
            Some((name, value)) => match value.as_str() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpProtobuf,
                other => {
                    bail!("{name}: there is no protocol `{other}` here: grpc or http/protobuf")
                }
            },
        };
        let number = |name: &str, otherwise: u64, least: u64| -> Result<u64> {
            match get(name) {
                None => Ok(otherwise),
                Some(text) => text
                    .trim()
                    .parse()
                    .ok()
                    .filter(|number| (least..=1_000_000).contains(number))
                    .with_context(|| {
                        format!("{name}: `{text}` is no number from {least} to 1,000,000")
                    }),
            }
        };
        let sampler = Sampler::read(
            get("OTEL_TRACES_SAMPLER").as_deref(),
            get("OTEL_TRACES_SAMPLER_ARG").as_deref(),
        )?;
        let timeout = match get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") {
            Some(_) => "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            None => "OTEL_EXPORTER_OTLP_TIMEOUT",
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1)?;
        let batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1)?.min(queue);
        let attributes = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        Ok(Some(Self {
            endpoint,
            protocol,
            certificate: either("CERTIFICATE").map(PathBuf::from),
            timeout: Duration::from_millis(number(timeout, 10_000, 1)?),
            sampler,
            queue: usize::try_from(queue)?,
            batch: usize::try_from(batch)?,
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 5000, 0)?),
            named: get("OTEL_SERVICE_NAME").is_some()
                || attributes
                    .split(',')
                    .any(|pair| pair.trim().starts_with("service.name=")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Variables>> {
        Variables::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[
                ("OTEL_SERVICE_NAME", "x"),
                ("OTEL_TRACES_SAMPLER", "always_on"),
            ],
            &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read(off).expect("valid").is_none(), "{off:?}");
        }
        let on = read(&[endpoint, ("OTEL_SDK_DISABLED", "false")]).expect("valid");
        let on = on.expect("on");
        assert_eq!(
            (on.protocol, on.queue, on.batch),
            (Protocol::HttpProtobuf, 2048, 512)
        );
        assert_eq!((on.delay.as_secs(), on.timeout.as_secs()), (5, 10));
        assert_eq!(on.sampler, Sampler::default());
        assert!(!on.named);
    }

    #[test]
    fn what_is_for_traces_counts_before_what_is_for_all() {
        let read = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name=x"),
        ]);
        let read = read.expect("valid").expect("on");
        assert_eq!(read.endpoint, "http://traces:4317");
        assert_eq!(
            (read.protocol, read.queue, read.batch),
            (Protocol::Grpc, 100, 100)
        );
        assert_eq!(read.timeout.as_millis(), 2500);
        assert!(read.named);
    }

    #[test]
    fn what_nobody_can_do_is_said() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ] {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
            let error = read(&[endpoint, (name, value)])
                .expect_err(name)
                .to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
