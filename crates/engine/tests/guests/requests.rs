//! Limits of requests, and what HTTP has beside them.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use plan::{Access, ExitCode, Serving};

use crate::process::Guest;
use crate::servers::{Answer, PATIENCE, Server};

fn server(name: &str, serving: Serving) -> Server {
    Server::start(Guest::built(name).plan(move |plan| plan.serving = serving))
}

/// Ends it and gives what it wrote to standard error.
fn ended(mut server: Server) -> String {
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), 0);
    server.stderr()
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn an_endless_loop_ends_at_its_time_while_others_go_on() {
    let time = Duration::from_secs(6);
    let server = server(
        "http-p2",
        Serving {
            request_timeout: Some(time),
            ..Serving::default()
        },
    );
    let begun = Instant::now();
    // More than there are threads.
    let mut spinning: Vec<_> = (0..12)
        .map(|_| BufReader::new(server.send("GET /spin HTTP/1.1\r\nHost: test\r\n\r\n")))
        .collect();
    assert_eq!(server.get("/").status, 200);
    assert!(begun.elapsed() < time, "others go on");
    for stream in &mut spinning {
        let answer = Answer::read(stream);
        assert_eq!(answer.status, 504, "{answer:?}");
    }
    assert!(begun.elapsed() >= time);
    assert_eq!(server.get("/").status, 200);
    // One that waits in a host call ends as well.
    let begun = Instant::now();
    assert_eq!(server.get("/slow?ms=20000").status, 504);
    assert!(begun.elapsed() < time * 2);
    // Drains: nothing of them is left.
    let stderr = ended(server);
    let told = stderr
        .lines()
        .filter(|line| line.contains("took longer than 6s (GET /spin)"))
        .count();
    assert_eq!(told, 12, "{stderr}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_client_that_goes_ends_its_guest() {
    for (name, path) in [
        ("http-p2", "/spin"),
        ("http-p2", "/slow?ms=60000"),
        ("http-p2", "/stream?n=100000&ms=50"),
        ("http-p3", "/slow?ms=60000"),
    ] {
        let server = server(
            name,
            Serving {
                max_requests: 1,
                ..Serving::default()
            },
        );
        let mut stream = server.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        if path.starts_with("/stream") {
            let mut line = String::new();
            BufReader::new(&mut stream)
                .read_line(&mut line)
                .expect("an answer");
        }
        // It has the one turn when another has to wait for it.
        let waiting = loop {
            let mut other = server.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            other
                .set_read_timeout(Some(Duration::from_millis(300)))
                .expect("timeout");
            if other.read(&mut [0]).is_err() {
                break other;
            }
        };
        drop(stream);
        waiting.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let answer = Answer::read(&mut BufReader::new(waiting));
        assert_eq!(answer.status, 200, "{path}: its turn does not come back");
        assert_eq!(ended(server), "", "{path}: a client that goes is no news");
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn only_so_many_requests_are_answered_at_once() {
    let server = server(
        "http-p2",
        Serving {
            max_requests: 2,
            ..Serving::default()
        },
    );
    // Two are answered, two wait, and one is too many.
    let mut streams: Vec<_> = (0..5)
        .map(|_| BufReader::new(server.send("GET /slow?ms=1500 HTTP/1.1\r\nHost: test\r\n\r\n")))
        .collect();
    let mut statuses: Vec<_> = streams
        .iter_mut()
        .map(|stream| Answer::read(stream).status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 503]);
}

/// More descriptors for this process and those that it starts, as a pod's have.
fn many_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many as are allowed");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn more_than_a_thousand_guests_are_alive_at_once() {
    const MANY: u32 = 1_500;
    many_descriptors();
    let dir = tempfile::tempdir().expect("temporary directory");
    let guest = Guest::built("http-p2").directory(dir.path(), Access::ReadOnly);
    let server = Server::start(guest.plan(|plan| plan.serving.max_requests = MANY));
    let mut held: Vec<_> = (0..MANY)
        .map(|_| {
            BufReader::new(server.send("GET /stream?n=1&ms=600000 HTTP/1.1\r\nHost: test\r\n\r\n"))
        })
        .collect();
    // The guest writes the head of its answer and waits before the rest: whoever has a head has an instance.
    for stream in &mut held {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a head");
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.running.child.id()));
    let descriptors = descriptors.expect("its descriptors").count();
    assert!(
        descriptors < MANY as usize + 100,
        "{descriptors} descriptors: a connection each is enough, the directory is one for all"
    );
    drop(held);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(ended(server), "", "clients that go are no news");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_body_that_is_too_long_is_refused() {
    let server = server(
        "http-p2",
        Serving {
            max_body: Some(100),
            ..Serving::default()
        },
    );
    let post = |head: &str, body: &str| {
        Answer::read(&mut BufReader::new(server.send(&format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n{body}"
        ))))
    };
    let fits = "x".repeat(100);
    assert_eq!(post("Content-Length: 100", &fits).text(), fits);
    assert_eq!(post("Content-Length: 101", "").status, 413);
    // Before it is sent.
    assert_eq!(
        post("Content-Length: 101\r\nExpect: 100-continue", "").status,
        413
    );
    let long = format!("65\r\n{}\r\n0\r\n\r\n", "x".repeat(101));
    // The guest answers before it reads: its answer ends early.
    let mut stream = server.send(&format!(
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{long}"
    ));
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains(&"x".repeat(101)), "{answer}");
    assert_eq!(server.get("/").status, 200);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_client_that_expects_to_be_asked_is_asked() {
    let server = server("http-p2", Serving::default());
    let mut stream = server.send(
        "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert!(line.starts_with("HTTP/1.1 100"), "{line}");
    reader.read_line(&mut line).expect("an empty line");
    stream.write_all(b"ok").expect("send");
    assert_eq!(Answer::read(&mut reader).text(), "ok");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn head_is_get_without_a_body() {
    let server = server(
        "http-p2",
        Serving {
            max_requests: 1,
            access_log: true,
            ..Serving::default()
        },
    );
    let mut stream =
        server.send("HEAD /stream?n=3&ms=1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-guest: http-p2"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\n") && !answer.contains("line"),
        "{answer}"
    );
    // The guest was let to write all of it.
    assert_eq!(server.get("/").status, 200);
    let stderr = ended(server);
    let first: serde_json::Value =
        serde_json::from_str(stderr.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["method"], &first["bytes"]),
        (&"HEAD".into(), &21.into()),
        "{stderr}"
    );
    assert!(first.get("aborted").is_none(), "{stderr}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn requests_are_logged_when_asked_for() {
    for name in ["http-p2", "http-p3"] {
        let serving = Serving {
            access_log: true,
            log_request_id: true,
            ..Serving::default()
        };
        let mut server = server(name, serving);
        let answer = Answer::read(&mut BufReader::new(server.send(
            "GET /stdout?text=hello HTTP/1.1\r\nHost: test\r\nX-Request-Id: abc-1\r\n\r\n",
        )));
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(server.get("/status/404").status, 404);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), 0);
        let stderr = server.stderr();
        let lines: Vec<serde_json::Value> = stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert_eq!(lines[0]["id"], "abc-1");
        assert_eq!(lines[0]["path"], "/stdout");
        assert_eq!(lines[0]["bytes"], 8);
        assert_eq!(lines[1]["status"], 404);
        assert!(
            lines[1]["id"].as_str().expect("an id").len() > 10,
            "{stderr}"
        );
        let mut stdout = String::new();
        server
            .running
            .child
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut stdout)
            .expect("read");
        assert!(stdout.contains("[abc-1] hello\n"), "{name}: {stdout}");
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn instances_are_reused_as_often_as_they_may_be() {
    let counts = |serving: Serving| {
        let server = server("http-p2", serving);
        let counts: Vec<_> = (0..5)
            .map(|_| server.get("/count").text().trim().to_owned())
            .collect();
        (counts, ended(server))
    };
    assert_eq!(counts(Serving::default()).0, ["1", "1", "1", "1", "1"]);
    let three = Serving {
        reuse_0_2: 3,
        ..Serving::default()
    };
    assert_eq!(
        counts(three.clone()),
        (
            ["1", "2", "3", "1", "2"].map(str::to_owned).to_vec(),
            String::new()
        )
    );
    let old = Serving {
        max_age: Some(Duration::from_nanos(1)),
        ..three
    };
    assert_eq!(counts(old).0, ["1", "1", "1", "1", "1"]);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_reuse_that_fails_is_told_once_and_not_repeated() {
    let server = server(
        "http-js",
        Serving {
            reuse_0_2: 100,
            ..Serving::default()
        },
    );
    let statuses: Vec<_> = (0..6).map(|_| server.get("/").status).collect();
    let failed = statuses.iter().filter(|status| **status != 200).count();
    let stderr = ended(server);
    let told = stderr
        .lines()
        .filter(|line| line.contains("reuse-instances"))
        .count();
    // What a toolchain makes today may bear it; then there is nothing to tell.
    assert!(failed <= 1 && told == failed, "{statuses:?} {stderr}");
    assert_eq!(statuses[5], 200, "{statuses:?}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_trap_after_reuse_has_worked_does_not_end_reuse() {
    let server = server(
        "http-p2",
        Serving {
            reuse_0_2: 100,
            ..Serving::default()
        },
    );
    assert_eq!(server.get("/count").text(), "1\n");
    assert_eq!(server.get("/count").text(), "2\n");
    assert_eq!(server.get("/trap").status, 500);
    assert_eq!(server.get("/count").text(), "1\n");
    assert_eq!(server.get("/count").text(), "2\n");
}

#[test]
fn fuel_is_used_up() {
    let endless = Guest::new(r#"(module (func (export "_start") (loop br 0)))"#);
    let ended = endless
        .plan(|plan| {
            plan.limits.fuel = Some(100_000);
            plan.engine.fuel = true;
        })
        .run();
    assert_eq!(ended.code, Some(ExitCode::OutOfTime.into()), "{ended:?}");
    assert!(ended.stderr.contains("fuel"), "{ended:?}");
}

#[test]
fn the_stack_is_as_deep_as_it_is_said() {
    // Counts its depth in an exported global's place: memory, which it prints nothing of; deep enough is enough.
    let deep = |frames: u32, stack: u64| {
        let text = format!(
            r#"(module (func $down (param i32) (local i64 i64 i64 i64)
                 (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1)))))
                 (local.set 1 (i64.add (local.get 1) (local.get 2))))
               (func (export "_start") (call $down (i32.const {frames}))))"#
        );
        Guest::new(text)
            .plan(move |plan| plan.limits.stack = stack)
            .run()
            .code
    };
    assert_eq!(deep(1000, 512 << 10), Some(0));
    assert_eq!(deep(100_000, 512 << 10), Some(ExitCode::Trap.into()));
    assert_eq!(deep(100_000, 32 << 20), Some(0));
}

#[test]
fn proposals_can_be_switched_off() {
    let simd = || Guest::new(r#"(module (func (export "_start") (drop (v128.const i64x2 0 0))))"#);
    assert_eq!(simd().run().code, Some(0));
    let ended = simd()
        .plan(|plan| plan.engine.disabled = vec![plan::Proposal::Simd])
        .run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("SIMD"), "{ended:?}");
}

/// Both ways over HTTP/2, and to a client of HTTP/1.1 that asks for them.
#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn trailers_go_both_ways() {
    let server = server("http-p2", Serving::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address)
            .await
            .expect("connect");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("handshake");
        let driver = tokio::spawn(connection);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "abc".parse().expect("a value"));
        let frames = [
            Frame::data(bytes::Bytes::from_static(b"hello")),
            Frame::trailers(trailers),
        ];
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        let request = http::Request::post("http://test/trailers")
            .body(StreamBody::new(futures::stream::iter(frames)))
            .expect("request");
        let answer = sender.send_request(request).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(body.trailers().expect("trailers")["x-length"], "5");
        assert_eq!(body.to_bytes(), "x-sum: abc\n");
        drop(sender);
        driver.await.expect("joined").expect("an orderly end");
    });
    let mut stream = server.send(
        "POST /trailers HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nab\r\n0\r\nx-sum: def\r\n\r\n",
    );
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("x-sum: def\n"), "{answer}");
    assert!(answer.ends_with("x-length: 2\r\n\r\n"), "{answer}");
}
