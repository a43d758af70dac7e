//! A `wasi:http` 0.2 server that tells of itself by `wasi:otel`, all of which it imports. README.md of the guests lists its
//! routes.

use std::time::{SystemTime, UNIX_EPOCH};

use wasi::clocks::wall_clock::Datetime;
use wasi::otel0_2_0_rc_1::logs::{self, LogRecord};
use wasi::otel0_2_0_rc_1::metrics::{
    Metric, MetricData, MetricNumber, ResourceMetrics, ScopeMetrics, Sum, SumDataPoint,
    Temporality, export as export_metrics,
};
use wasi::otel0_2_0_rc_1::tracing::{
    Event, Link, SpanContext, SpanData, SpanKind, Status, TraceFlags, on_end, on_start,
    outer_span_context,
};
use wasi::otel0_2_0_rc_1::types::{InstrumentationScope, KeyValue, Resource};
use wasi::otel0_2_0_rc_2::tracing as later;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};

// The exported symbols that the macros make are `unsafe` by nature; our own code has none.
wit_bindgen::generate!({ path: "wit", world: "telemetry", generate_all });

struct Server;

wasip2::http::proxy::export!(Server);

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let text = match path {
            "/" => "hello from otel\n".to_owned(),
            "/span" => span(|_| ()),
            "/fetch" => span(|_| fetch(query)),
            "/big" => big(),
            "/wrong" => wrong(),
            "/many" => {
                (0..query.parse().unwrap_or(1)).for_each(|_| drop(span(|_| ())));
                "told\n".to_owned()
            }
            "/log" => log(),
            "/metrics" => metrics(),
            _ => "no such route\n".to_owned(),
        };
        answer(out, &text);
    }
}

/// What a context is, in a line.
fn line(what: &str, trace: &str, span: &str, sampled: bool) -> String {
    format!("{what} {trace} {span} {sampled}\n")
}

fn now() -> Datetime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    Datetime {
        seconds: since.as_secs(),
        nanoseconds: since.subsec_nanos(),
    }
}

fn pair(key: &str, json: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: json.to_owned(),
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "otel-guest".to_owned(),
        version: Some("1.2.3".to_owned()),
        schema_url: None,
        attributes: Vec::new(),
    }
}

/// A context below the host's, or of a new trace where the host has none, as the libraries do it.
fn below(outer: &SpanContext) -> SpanContext {
    let id = wasip2::random::random::get_random_u64;
    let root = outer.trace_id.bytes().all(|digit| digit == b'0');
    SpanContext {
        trace_id: if root {
            format!("{:016x}{:016x}", id(), id())
        } else {
            outer.trace_id.clone()
        },
        span_id: format!("{:016x}", id()),
        trace_flags: if root {
            TraceFlags::SAMPLED
        } else {
            outer.trace_flags
        },
        is_remote: false,
        trace_state: outer.trace_state.clone(),
    }
}

fn data(context: &SpanContext, outer: &SpanContext, begun: Datetime) -> SpanData {
    SpanData {
        span_context: context.clone(),
        parent_span_id: outer.span_id.clone(),
        span_kind: SpanKind::Internal,
        name: "cast off".to_owned(),
        start_time: begun,
        end_time: now(),
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        status: Status::Ok,
        instrumentation_scope: scope(),
        dropped_attributes: 0,
        dropped_events: 0,
        dropped_links: 0,
    }
}

/// Tells a span in which it does what it is asked to; says where it was before, in it and afterwards.
fn span(work: impl FnOnce(&SpanContext)) -> String {
    let outer = outer_span_context();
    let context = below(&outer);
    let begun = now();
    on_start(&context);
    let inside = later::current_span_context();
    work(&context);
    on_end(&SpanData {
        attributes: vec![
            pair("ship.name", "\"Sampan\""),
            pair("ship.crew", "3"),
            pair("ship.draught", "0.5"),
            pair("ship.afloat", "true"),
            pair("ship.masts", "[\"fore\",\"main\"]"),
        ],
        events: vec![Event {
            name: "anchor up".to_owned(),
            time: begun,
            attributes: vec![pair("anchor", "1")],
        }],
        links: vec![Link {
            span_context: outer.clone(),
            attributes: vec![pair("why", "\"below it\"")],
        }],
        span_kind: SpanKind::Producer,
        dropped_attributes: 2,
        ..data(&context, &outer, begun)
    });
    let after = later::current_span_context();
    let sampled = |flags: later::TraceFlags| flags == later::TraceFlags::SAMPLED;
    [
        line(
            "outer",
            &outer.trace_id,
            &outer.span_id,
            outer.trace_flags == TraceFlags::SAMPLED,
        ),
        line(
            "own",
            &context.trace_id,
            &context.span_id,
            context.trace_flags == TraceFlags::SAMPLED,
        ),
        line(
            "inside",
            &inside.trace_id,
            &inside.span_id,
            sampled(inside.trace_flags),
        ),
        line(
            "after",
            &after.trace_id,
            &after.span_id,
            sampled(after.trace_flags),
        ),
    ]
    .concat()
}

/// More than anybody takes.
fn big() -> String {
    let outer = outer_span_context();
    let long = format!("\"{}\"", "x".repeat(2000));
    let many: Vec<KeyValue> = (0..200)
        .map(|number| pair(&format!("key.{number}"), &long))
        .collect();
    let begun = now();
    let event = Event {
        name: "e".repeat(2000),
        time: begun,
        attributes: many[..10].to_vec(),
    };
    on_end(&SpanData {
        name: "n".repeat(2000),
        attributes: many,
        events: vec![event; 50],
        status: Status::Error("because".to_owned()),
        ..data(&below(&outer), &outer, begun)
    });
    "told\n".to_owned()
}

/// Spans that are nowhere.
fn wrong() -> String {
    let outer = outer_span_context();
    for trace_id in ["", "nonsense", "00000000000000000000000000000000"] {
        let context = SpanContext {
            trace_id: trace_id.to_owned(),
            trace_flags: TraceFlags::SAMPLED,
            ..below(&outer)
        };
        on_start(&context);
        on_end(&data(&context, &outer, now()));
    }
    "told\n".to_owned()
}

fn log() -> String {
    let outer = outer_span_context();
    logs::on_emit(&LogRecord {
        timestamp: Some(now()),
        observed_timestamp: Some(now()),
        severity_text: Some("WARN".to_owned()),
        severity_number: Some(13),
        body: Some("\"shallow \\\"water\\\"\"".to_owned()),
        attributes: Some(vec![pair("depth", "2")]),
        event_name: None,
        resource: None,
        instrumentation_scope: Some(scope()),
        trace_id: Some(outer.trace_id.clone()),
        span_id: Some(outer.span_id.clone()),
        trace_flags: Some(outer.trace_flags),
    });
    line(
        "outer",
        &outer.trace_id,
        &outer.span_id,
        outer.trace_flags == TraceFlags::SAMPLED,
    )
}

fn metrics() -> String {
    let point = SumDataPoint {
        attributes: Vec::new(),
        value: MetricNumber::U64(1),
        exemplars: Vec::new(),
    };
    let metric = Metric {
        name: "knots".to_owned(),
        description: String::new(),
        unit: "1".to_owned(),
        data: MetricData::U64Sum(Sum {
            data_points: vec![point],
            start_time: now(),
            time: now(),
            temporality: Temporality::Cumulative,
            is_monotonic: true,
        }),
    };
    let told = export_metrics(&ResourceMetrics {
        resource: Resource {
            attributes: Vec::new(),
            schema_url: None,
        },
        scope_metrics: vec![ScopeMetrics {
            scope: scope(),
            metrics: vec![metric],
        }],
    });
    match told {
        Ok(()) => "taken\n".to_owned(),
        Err(reason) => format!("refused: {reason}\n"),
    }
}

/// Sends a request for `/x` to the server of this address.
fn fetch(authority: &str) {
    let request = OutgoingRequest::new(Fields::new());
    let fits = "the parts of a request";
    request.set_scheme(Some(&Scheme::Http)).expect(fits);
    request.set_authority(Some(authority)).expect(fits);
    request.set_path_with_query(Some("/x")).expect(fits);
    let pending = outgoing_handler::handle(request, None).expect("sent");
    pending.subscribe().block();
    let answer = pending.get().expect("the wait is over");
    answer.expect("taken once").expect("an answer");
}

fn answer(out: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body is asked for once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is asked for once");
    // A client that went away is no fault of the guest's.
    if stream.blocking_write_and_flush(text.as_bytes()).is_ok() {
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body is as long as was promised");
    }
}
