//! `wasi:otel`: a guest's own spans, logs and metrics.

use engine::{Answer, survey};
use nix::sys::signal::Signal;
use plan::LogFormat;
use plan::trace::{Context, Kind, Role, Sampler, Span, Tracing, Value};

use crate::process::{Guest, ROOM, plan};
use crate::servers::Server;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn tracing(sampler: &str) -> Tracing {
    Tracing {
        sampler: Sampler::read(Some(sampler), None).expect("a sampler"),
        start: Context::new(true),
    }
}

fn guest() -> Guest {
    Guest::built("otel")
}

/// Asks as a part of a trace.
fn ask(server: &Server, path: &str, sampled: bool) -> String {
    let flags = u8::from(sampled);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\ntraceparent: 00-{TRACE}-{PARENT}-{flags:02x}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = std::io::BufReader::new(server.send(&request));
    let answer = crate::servers::Answer::read(&mut stream);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.text()
}

/// What a guest says of where it was: trace, span, and whether it is kept.
fn said<'a>(answer: &'a str, what: &str) -> [&'a str; 3] {
    let line = answer.lines().find_map(|line| line.strip_prefix(what));
    let words: Vec<_> = line.expect(answer).split_whitespace().collect();
    words.try_into().expect(answer)
}

/// Ends it, and gives back all that it told.
fn end(mut server: Server) -> Vec<Span> {
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
    server.running.spans()
}

fn own(spans: &[Span]) -> Vec<&Span> {
    spans.iter().filter(|span| span.own.is_some()).collect()
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_span_of_the_guests_is_below_its_request() {
    let server = Server::start(guest().traced(tracing("parentbased_always_on")));
    let answer = ask(&server, "/span", true);
    let [trace, outer, kept] = said(&answer, "outer ");
    assert_eq!((trace, kept), (TRACE, "true"), "{answer}");
    let [_, id, _] = said(&answer, "own ");
    // Where it is between the span's beginning and its end.
    assert_eq!(said(&answer, "inside "), said(&answer, "own "));
    assert_eq!(said(&answer, "after "), said(&answer, "outer "));
    let spans = end(server);
    let request = spans.iter().find(|span| span.kind == Kind::Server);
    let request = request.expect("the request's");
    assert_eq!(request.span.to_string(), outer);
    let [span] = own(&spans)[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (
            span.trace.to_string().as_str(),
            span.span.to_string().as_str()
        ),
        (TRACE, id)
    );
    assert_eq!(span.parent, Some(request.span));
    assert!(
        request.start <= span.start && span.end <= request.end,
        "{spans:?}"
    );
    let own = span.own.as_ref().expect("its own");
    let text = |text: &str| Value::Text(text.to_owned());
    let wanted = [
        ("ship.name", text("Sampan")),
        ("ship.crew", Value::Int(3)),
        ("ship.draught", Value::Double(0.5)),
        ("ship.afloat", Value::Bool(true)),
        ("ship.masts", Value::List(vec![text("fore"), text("main")])),
    ];
    let wanted = wanted.map(|(key, value)| (key.to_owned(), value));
    assert_eq!(own.attributes, wanted);
    assert_eq!(
        (own.dropped_attributes, own.ok, own.role),
        (2, true, Some(Role::Producer))
    );
    assert_eq!(own.events[0].name, "anchor up");
    assert_eq!(own.links[0].to.span, request.span);
    assert_eq!(
        (own.scope.name.as_str(), own.scope.version.as_deref()),
        ("otel-guest", Some("1.2.3"))
    );
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn what_is_not_kept_or_belongs_nowhere_is_not_told() {
    let server = Server::start(guest().traced(tracing("parentbased_always_on")));
    let answer = ask(&server, "/span", false);
    let [trace, outer, kept] = said(&answer, "outer ");
    assert_eq!((trace, outer, kept), (TRACE, PARENT, "false"), "{answer}");
    ask(&server, "/wrong", true);
    let spans = end(server);
    assert!(own(&spans).is_empty(), "{spans:?}");
    assert_eq!(spans.len(), 1, "the second request: {spans:?}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_span_has_so_much_room_and_what_is_missing_is_counted() {
    let server = Server::start(guest().traced(tracing("always_on")));
    ask(&server, "/big", true);
    let spans = end(server);
    let [span] = own(&spans)[..] else {
        panic!("{spans:?}");
    };
    let own = span.own.as_ref().expect("its own");
    assert!(span.to_json().expect("JSON").len() <= ROOM);
    assert!((1..200).contains(&own.attributes.len()), "{own:?}");
    assert_eq!(own.attributes.len() + own.dropped_attributes as usize, 200);
    assert_eq!(own.events.len() + own.dropped_events as usize, 50);
    assert_eq!(
        (span.name.len(), span.error.as_deref()),
        (128, Some("because"))
    );
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn without_tracing_a_guest_works_the_same() {
    let mut server = Server::start(guest());
    let answer = ask(&server, "/span", true);
    let nowhere = ["0".repeat(32), "0".repeat(16), "false".to_owned()];
    for what in ["outer ", "inside ", "after "] {
        assert_eq!(said(&answer, what), nowhere, "{answer}");
    }
    for (path, text) in [
        ("/big", "told\n"),
        ("/wrong", "told\n"),
        ("/", "hello from otel\n"),
    ] {
        assert_eq!(ask(&server, path, true), text);
    }
    // Nothing pretends to have been exported.
    let refused = ask(&server, "/metrics", true);
    assert!(
        refused.starts_with("refused: Sampan takes no metrics"),
        "{refused}"
    );
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn logs_are_lines_of_the_containers_log() {
    let mut server = Server::start(guest());
    ask(&server, "/log", true);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
    let log = server.stderr();
    assert!(
        log.lines()
            .any(|line| line == "WARN otel-guest: shallow \"water\" depth=2"),
        "{log}"
    );

    let json = guest().plan(|plan| plan.log_format = LogFormat::Json);
    let mut server = Server::start(json.traced(tracing("always_on")));
    let answer = ask(&server, "/log", true);
    let [trace, span, _] = said(&answer, "outer ");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("otel-guest"));
    let object: serde_json::Value = serde_json::from_str(line.expect(&log)).expect("JSON");
    for (field, value) in [
        ("level", "warn"),
        ("context", "otel-guest"),
        ("message", "shallow \"water\""),
        ("trace_id", trace),
        ("span_id", span),
    ] {
        assert_eq!(object[field], value, "{log}");
    }
    assert_eq!(object["attributes"]["depth"], 2, "{log}");
}

/// A component that imports an interface of `wasi:otel` with these functions, and does nothing.
fn imports(interface: &str, functions: &str) -> Result<(), String> {
    let source = format!(
        r#"(component
            (import "wasi:otel/{interface}" (instance
                (type $flags' (flags "sampled"))
                (export "trace-flags" (type $flags (eq $flags')))
                (type $context' (record (field "trace-id" string) (field "span-id" string)
                    (field "trace-flags" $flags) (field "is-remote" bool)
                    (field "trace-state" (list (tuple string string)))))
                (export "span-context" (type $context (eq $context')))
                (type $value' (variant (case "string" string) (case "s64" s64)))
                (export "value" (type $value (eq $value')))
                (type $pair' (record (field "key" string) (field "value" $value)))
                (export "key-value" (type $pair (eq $pair')))
                (type $data' (record (field "name" string) (field "span-context" $context)
                    (field "attributes" (list $pair))))
                (export "span-data" (type $data (eq $data')))
                {functions}))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))"#
    );
    let mut guest = plan();
    guest.entry = plan::Entry::parse("#f");
    let found = survey(source.as_bytes(), &guest).expect("valid");
    match &found.imports[0].answer {
        Answer::Provided => Ok(()),
        Answer::Refused(error) => Err(error.to_string()),
        Answer::Open => panic!("there is one import"),
    }
}

#[test]
fn every_draft_is_served_that_can_be_understood() {
    for (interface, functions) in [
        // As in the first drafts, and with variants for values.
        (
            "tracing@0.2.0-draft",
            r#"(export "on-start" (func (param "span" $data) (param "parent" $context)))
               (export "on-end" (func (param "span" $data)))
               (export "current-span-context" (func (result $context)))"#,
        ),
        (
            "tracing@0.2.0-rc.2+patch",
            r#"(export "on-start" (func (param "context" $context)))
               (export "outer-span-context" (func (result $context)))"#,
        ),
        (
            "metrics@0.3.0",
            r#"(export "export" (func (param "metrics" u8) (result (result (error string)))))"#,
        ),
        // Types alone.
        ("types@0.2.0-rc.1", ""),
    ] {
        assert_eq!(imports(interface, functions), Ok(()), "{interface}");
    }
    for (interface, function, text) in [
        (
            "tracing@0.2.0-rc.9",
            "on-end",
            r#"(func (param "span" u32))"#,
        ),
        (
            "tracing@0.2.0-rc.9",
            "on-end",
            r#"(func (param "span" $data) (result bool))"#,
        ),
        (
            "tracing@0.2.0-rc.9",
            "outer-span-context",
            "(func (result (option $context)))",
        ),
        (
            "tracing@0.2.0-rc.9",
            "inner-span-context",
            "(func (result $context))",
        ),
        (
            "metrics@0.2.0-rc.9",
            "export",
            r#"(func (param "metrics" u8) (result bool))"#,
        ),
        (
            "logs@0.2.0-rc.9",
            "on-emit",
            r#"(func (param "data" $data))"#,
        ),
        (
            "logs@0.2.0-rc.9",
            "emit",
            r#"(func (param "data" $data) (result (result)))"#,
        ),
    ] {
        let export = format!(r#"(export "{function}" {text})"#);
        let error = imports(interface, &export).expect_err(function);
        assert!(
            error.contains(interface) && error.contains(function),
            "{error}"
        );
    }
}
