//! Traces, from containerd's request and a client's to a collector that speaks real OTLP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Containerd, Task, Version, free_address, image, listening, until};
use nix::sys::signal::Signal;
use node_tests::collector::{Collector, Span, variables};
use node_tests::listener::Listener;
use node_tests::origin::{Origin, ask, header};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpSocket;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// What every start of a wasm container of an image with a layer consists of, beside `compile`.
const PHASES: [&str; 13] = [
    "spec",
    "plan",
    "cgroup",
    "image",
    "streams",
    "rootfs",
    "artifact",
    "spawn",
    "note",
    "runner",
    "runner.open",
    "runner.link",
    "runner.enter",
];

/// A containerd without CRI, with what is to be in its environment.
async fn containerd(
    version: Version,
    variables: &[(String, String)],
) -> Result<Option<Containerd>> {
    if !node_tests::able()? {
        return Ok(None);
    }
    let mut builder = Containerd::builder().version(version).without_cri();
    for (name, value) in variables {
        builder = builder.env(name, value);
    }
    builder.start().await.map(Some)
}

async fn layer(containerd: &Containerd, guest: &str) -> Result<String> {
    let reference = format!("example.test/{}:v1", guest.replace('.', "-"));
    let image = image::bytecode_alliance(harness::guest(guest)?);
    containerd.import(&reference, &image).await?;
    Ok(reference)
}

/// A guest that serves.
struct Served<'a> {
    task: Task<'a>,
    address: SocketAddr,
}

impl<'a> Served<'a> {
    async fn start(containerd: &'a Containerd, guest: &str) -> Result<Self> {
        let image = layer(containerd, guest).await?;
        let address = free_address()?;
        let mut task = containerd
            .task(&image)
            .host_network()
            .args(["/"])
            .env("OTEL_SERVICE_NAME", "shop")
            .annotation("sampan.dev/http-listen", &address.to_string())
            .annotation("io.kubernetes.cri.sandbox-namespace", "harbour")
            .annotation("io.kubernetes.cri.container-name", "web")
            .create()
            .await?;
        task.start().await?;
        listening(address).await?;
        Ok(Self { task, address })
    }

    async fn end(mut self) -> Result<()> {
        self.task.kill(15).await?;
        self.task.wait().await?;
        self.task.delete().await?;
        Ok(())
    }
}

fn named<'a>(spans: &'a [Span], service: &str, name: &str) -> Option<&'a Span> {
    spans
        .iter()
        .find(|span| span.of("service.name") == service && span.name == name)
}

/// The parts of a span, as they came.
fn parts<'a>(spans: &'a [Span], of: &Span) -> Vec<&'a Span> {
    spans
        .iter()
        .filter(|span| span.trace == of.trace && span.parent == of.id)
        .collect()
}

async fn a_start_is_one_trace(version: Version, collector: Collector) -> Result<()> {
    // containerd's own traces go to the same collector.
    let mut own = collector.variables();
    own.push(("OTEL_SERVICE_NAME".to_owned(), "containerd".to_owned()));
    let Some(containerd) = containerd(version, &own).await? else {
        return Ok(());
    };
    let listener = Listener::start(&containerd, &collector.variables()).await?;
    let image = layer(&containerd, "hello.wasm").await?;
    let output = containerd.task(&image).args(["/"]).run().await?;
    ensure!(output.status == 0, "{output:?}");

    let spans = collector
        .until("the spans of a start, containerd's among them", |spans| {
            let create = named(spans, "sampan", "create")?;
            let start = named(spans, "sampan", "start")?;
            let above = |span: &Span| spans.iter().any(|other| other.id == span.parent);
            (above(create) && above(start)).then(|| spans.to_vec())
        })
        .await?;
    let create = named(&spans, "sampan", "create").context("create")?;
    let inside = parts(&spans, create);
    for phase in PHASES {
        let span = inside.iter().find(|span| span.name == phase);
        let span = span.with_context(|| format!("{phase}: {inside:?}"))?;
        ensure!(span.kind == SpanKind::Internal && span.error.is_none());
        ensure!(!span.attribute("container.id").is_empty(), "{span:?}");
        ensure!(span.start <= span.end, "{span:?}");
        ensure!(
            create.start <= span.start && span.end <= create.end,
            "{span:?} {create:?}"
        );
    }
    let artifact = named(&spans, "sampan", "artifact").context("artifact")?;
    ensure!(parts(&spans, artifact)[0].name == "compile");
    // Both are containerd's to ask for, and parts of its own traces.
    for name in ["create", "start"] {
        let span = named(&spans, "sampan", name).context(name)?;
        ensure!(
            span.kind == SpanKind::Server && span.error.is_none(),
            "{span:?}"
        );
        let above = spans.iter().find(|other| other.id == span.parent);
        let above = above.context("containerd's span")?;
        ensure!(above.trace == span.trace && above.of("service.name") == "containerd");
        ensure!(
            above.start <= span.start && span.end <= above.end,
            "{above:?} {span:?}"
        );
    }
    ensure!(collector.tenants().iter().any(|tenant| tenant == "harbour"));

    // What fails says why, in the phase where it failed.
    let image = layer(&containerd, "unknown-interface.wasm").await?;
    let failed = containerd.task(&image).args(["/"]).create().await;
    ensure!(failed.is_err());
    let errors = collector
        .until("the spans of a start that fails", |spans| {
            let failed = |span: &&Span| span.error.is_some() && span.of("service.name") == "sampan";
            let names: Vec<_> = spans
                .iter()
                .filter(failed)
                .map(|it| it.name.clone())
                .collect();
            names.iter().any(|name| name == "create").then_some(names)
        })
        .await?;
    ensure!(errors == ["runner", "create"], "{errors:?}");
    listener.end(Signal::SIGTERM).await?;
    ensure!(!containerd.sampan_run().join("traces").exists());
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_one_trace_with_containerds_over_grpc() -> Result<()> {
    a_start_is_one_trace(Version::V2, Collector::grpc().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_one_trace_with_containerds_over_http() -> Result<()> {
    a_start_is_one_trace(Version::V2, Collector::http().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_through_the_guest_and_on() -> Result<()> {
    let Some(containerd) = containerd(Version::V2, &[]).await? else {
        return Ok(());
    };
    let origin = Origin::start().await?;
    for guest in ["http-p2.wasm", "http-p3.wasm"] {
        let collector = Collector::grpc().await?;
        let listener = Listener::start(&containerd, &collector.variables()).await?;
        let served = Served::start(&containerd, guest).await?;
        // The guest of WASI 0.3 sends nothing.
        let sends = guest == "http-p2.wasm";
        let path = format!("/fetch?scheme=http&authority={}&path=/x", origin.address);
        let parent = format!("00-{TRACE}-{PARENT}-01");
        let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1")];
        let answer = ask(served.address, &path, &headers).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 200") || !sends,
            "{guest}: {answer}"
        );
        ask(served.address, "/trap", &headers).await?;

        let spans = collector
            .until("the spans of two requests", |spans| {
                let of = spans.iter().filter(|span| span.trace == TRACE);
                let of: Vec<_> = of.cloned().collect();
                (of.len() == if sends { 3 } else { 2 }).then_some(of)
            })
            .await?;
        let of = |path: &str| spans.iter().find(|span| span.attribute("url.path") == path);
        let (server, failed) = of("/fetch").zip(of("/trap")).context("both requests")?;
        for span in [server, failed] {
            ensure!(
                (span.parent.as_str(), span.kind) == (PARENT, SpanKind::Server),
                "{span:?}"
            );
        }
        ensure!(
            server.error.is_none() && failed.error.is_some(),
            "{spans:?}"
        );
        ensure!(failed.attribute("error.type") == "500", "{failed:?}");
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            (
                "http.response.status_code",
                if sends { "200" } else { "404" },
            ),
            ("server.port", &served.address.port().to_string()),
            ("network.protocol.version", "1.1"),
        ] {
            ensure!(server.attribute(key) == value, "{guest}: {key}: {server:?}");
        }
        if sends {
            let client = spans.iter().find(|span| span.kind == SpanKind::Client);
            let client = client.context("what the guest sent")?;
            ensure!(
                client.parent == server.id && client.error.is_none(),
                "{client:?}"
            );
            ensure!(server.start <= client.start && client.end <= server.end);
            for (key, value) in [
                ("url.full", format!("http://{}/x", origin.address).as_str()),
                ("server.address", "127.0.0.1"),
                ("http.response.status_code", "200"),
            ] {
                ensure!(client.attribute(key) == value, "{key}: {client:?}");
            }
            // The next server is told of the request that was sent to it.
            let told = origin.header("traceparent");
            ensure!(
                told == Some(format!("00-{TRACE}-{}-01", client.id)),
                "{told:?}"
            );
            ensure!(origin.header("tracestate").as_deref() == Some("a=1"));
        }
        for span in &spans {
            ensure!(span.state == "a=1", "{span:?}");
            for (key, value) in [
                ("service.name", "shop"),
                ("container.id", served.task.id()),
                ("k8s.namespace.name", "harbour"),
                ("k8s.container.name", "web"),
            ] {
                ensure!(span.of(key) == value, "{guest}: {key}: {span:?}");
            }
        }
        // Another listener comes at the place of this one, and is told of what comes then.
        listener.end(Signal::SIGKILL).await?;
        let listener = Listener::start(&containerd, &collector.variables()).await?;
        until(
            "a request after the listener's restart",
            Duration::from_secs(30),
            async || {
                ask(served.address, "/count", &[]).await?;
                Ok(collector
                    .spans()
                    .iter()
                    .any(|span| span.attribute("url.path") == "/count")
                    .then_some(()))
            },
        )
        .await?;
        served.end().await?;
        listener.end(Signal::SIGTERM).await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_told() -> Result<()> {
    let Some(containerd) = containerd(Version::V2, &[]).await? else {
        return Ok(());
    };
    let collector = Collector::grpc().await?;
    let mut variables = collector.variables();
    variables.push((
        "OTEL_TRACES_SAMPLER".to_owned(),
        "parentbased_traceidratio".to_owned(),
    ));
    variables.push(("OTEL_TRACES_SAMPLER_ARG".to_owned(), "0".to_owned()));
    let listener = Listener::start(&containerd, &variables).await?;
    let served = Served::start(&containerd, "http-p2.wasm").await?;
    // A trace begins that nobody keeps, and everyone behind is told so.
    let told = ask(served.address, "/headers", &[]).await?;
    let told = header(&told, "traceparent").context("a traceparent")?;
    ensure!(told.ends_with("-00"), "{told}");
    let not = format!("00-{TRACE}-{PARENT}-00");
    let told = ask(served.address, "/headers", &[("traceparent", &not)]).await?;
    ensure!(header(&told, "traceparent") == Some(not), "{told}");
    // What its client keeps is kept.
    let kept = format!("00-{TRACE}-{PARENT}-01");
    ask(served.address, "/count", &[("traceparent", &kept)]).await?;
    collector
        .until("the one that is kept", |spans| {
            (!spans.is_empty()).then_some(())
        })
        .await?;
    served.end().await?;
    listener.end(Signal::SIGTERM).await?;
    let spans = collector.spans();
    ensure!(spans.len() == 1 && spans[0].parent == PARENT, "{spans:?}");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_listener_nothing_is_traced_and_headers_go_through() -> Result<()> {
    let Some(containerd) = containerd(Version::V2, &[]).await? else {
        return Ok(());
    };
    let served = Served::start(&containerd, "http-p2.wasm").await?;
    ensure!(!containerd.sampan_run().join("traces").exists());
    let told = ask(served.address, "/headers", &[]).await?;
    ensure!(header(&told, "traceparent").is_none(), "{told}");
    // Whatever it is: nobody looks at it.
    let headers = [("traceparent", "nonsense"), ("tracestate", "A=1,,=")];
    let told = ask(served.address, "/headers", &headers).await?;
    for (name, value) in headers {
        ensure!(header(&told, name).as_deref() == Some(value), "{told}");
    }
    served.end().await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_nobodys_trouble() -> Result<()> {
    let Some(containerd) = containerd(Version::V2, &[]).await? else {
        return Ok(());
    };
    // Bound, and nobody listens there: connections are refused, and no other test gets the port.
    let away = TcpSocket::new_v4()?;
    away.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let mut variables = variables("grpc", away.local_addr()?);
    // A few requests are more than there is room for.
    variables.push(("OTEL_BSP_MAX_QUEUE_SIZE".to_owned(), "16".to_owned()));
    let listener = Listener::start(&containerd, &variables).await?;
    let served = Served::start(&containerd, "http-p2.wasm").await?;
    for _ in 0..100 {
        let answer = ask(served.address, "/", &[]).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    served.end().await?;
    let says = listener.end(Signal::SIGTERM).await?;
    ensure!(says.contains("spans were not exported"), "{says}");
    // And one whose listener was killed: its notice is still there.
    let listener = Listener::start(&containerd, &variables).await?;
    listener.end(Signal::SIGKILL).await?;
    ensure!(containerd.sampan_run().join("traces/sampling").exists());
    let served = Served::start(&containerd, "http-p2.wasm").await?;
    let answer = ask(served.address, "/", &[]).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    served.end().await?;
    std::fs::remove_dir_all(containerd.sampan_run().join("traces"))?;
    containerd.assert_clean().await
}

/// What the guest `otel` says of where it was: trace, span, and whether it is kept.
fn said<'a>(answer: &'a str, what: &str) -> Result<[&'a str; 3]> {
    let line = answer.lines().find_map(|line| line.strip_prefix(what));
    let words: Vec<_> = line.context("said")?.split_whitespace().collect();
    words.try_into().ok().context("three words")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_own_spans_are_in_the_trace_of_their_request() -> Result<()> {
    let Some(containerd) = containerd(Version::V2, &[]).await? else {
        return Ok(());
    };
    let origin = Origin::start().await?;
    let collector = Collector::grpc().await?;
    let listener = Listener::start(&containerd, &collector.variables()).await?;
    let served = Served::start(&containerd, "otel.wasm").await?;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1")];
    let path = format!("/fetch?{}", origin.address);
    let answer = ask(served.address, &path, &headers).await?;
    let [trace, outer, _] = said(&answer, "outer ")?;
    ensure!(trace == TRACE, "{answer}");
    let [_, id, _] = said(&answer, "own ")?;
    let spans = collector
        .until(
            "the request's span, the guest's, and what it sent",
            |spans| {
                let of = spans.iter().filter(|span| span.trace == TRACE);
                let of: Vec<_> = of.cloned().collect();
                (of.len() == 3).then_some(of)
            },
        )
        .await?;
    let of = |id: &str| spans.iter().find(|span| span.id == id);
    let (server, own) = of(outer).zip(of(id)).context("both spans")?;
    ensure!((server.kind, server.parent.as_str()) == (SpanKind::Server, PARENT));
    ensure!(
        (own.name.as_str(), own.kind, own.parent.as_str())
            == ("cast off", SpanKind::Producer, outer),
        "{own:?}"
    );
    ensure!(server.start <= own.start && own.end <= server.end);
    for (key, value) in [
        ("ship.name", "Sampan"),
        ("ship.crew", "3"),
        ("ship.draught", "0.5"),
        ("ship.afloat", "true"),
        ("ship.masts", "[fore,main]"),
    ] {
        ensure!(own.attribute(key) == value, "{key}: {own:?}");
    }
    for (key, value) in [
        ("service.name", "shop"),
        ("container.id", served.task.id()),
        ("k8s.container.name", "web"),
    ] {
        ensure!(
            own.of(key) == value && server.of(key) == value,
            "{key}: {own:?}"
        );
    }
    let [(event, with)] = &own.events[..] else {
        anyhow::bail!("{own:?}");
    };
    ensure!(event == "anchor up" && with.get("anchor").is_some_and(|it| it == "1"));
    ensure!(own.links.len() == 1 && own.links[0].0 == outer, "{own:?}");
    ensure!(
        own.scope == ("otel-guest".to_owned(), "1.2.3".to_owned()),
        "{own:?}"
    );
    ensure!(server.scope.0 == "sampan", "{server:?}");
    ensure!(
        own.ok && own.state == "a=1" && own.dropped == [2, 0, 0],
        "{own:?}"
    );
    // What it sent within its own span is a part of that.
    let client = spans.iter().find(|span| span.kind == SpanKind::Client);
    ensure!(client.context("what it sent")?.parent == id, "{spans:?}");

    // More than there is room for.
    ask(served.address, "/big", &[]).await?;
    let big = collector
        .until("a span that was cut", |spans| {
            spans.iter().find(|span| span.dropped[0] > 2).cloned()
        })
        .await?;
    let [attributes, events, _] = big.dropped;
    ensure!(big.attributes.len() + attributes as usize == 200, "{big:?}");
    ensure!(big.events.len() + events as usize == 50, "{big:?}");
    ensure!(big.error.as_deref() == Some("because"), "{big:?}");
    // A guest that tells without a pause is heard a thousand times a second, and answers all the same. Without that bound
    // several thousand would come in each.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let answer = ask(served.address, "/many?2000", &[]).await?;
        ensure!(answer.contains("told"), "{answer}");
    }
    let answer = ask(served.address, "/metrics", &[]).await?;
    ensure!(
        answer.contains("refused: Sampan takes no metrics"),
        "{answer}"
    );
    served.end().await?;
    listener.end(Signal::SIGTERM).await?;
    let seconds = began.elapsed().as_secs();
    let told = collector
        .spans()
        .iter()
        .filter(|span| span.name == "cast off" && span.id != id)
        .count();
    // The first and the last second count whole, as the supervisor's seconds begin when they like.
    let most = 1000 * (usize::try_from(seconds)? + 2);
    ensure!((1..=most).contains(&told), "{told} in {seconds} s");
    containerd.assert_clean().await
}
