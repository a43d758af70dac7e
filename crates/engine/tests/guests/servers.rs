use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plan::{Access, ExitCode};

use crate::process::{Guest, Running};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
}

/// An address of loopback that is free, and stays so until somebody listens there: as the tests' harness has it, on
/// which no crate depends.
fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // On 127.0.0.1 another process that asks for any port would get this one.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ours = Ipv4Addr::new(127, 1 + high % 254, middle, low);
    loop {
        let listener = TcpListener::bind((ours, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        if GIVEN.lock().expect("whole").insert(address.port()) {
            return address;
        }
    }
}

impl Server {
    pub(crate) fn start(guest: Guest) -> Self {
        let address = free_address();
        let mut running = guest.listen(address).start();
        // Compiling comes before.
        let deadline = Instant::now() + PATIENCE * 10;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            assert!(
                running.child.try_wait().expect("wait").is_none(),
                "the server ended"
            );
            std::thread::yield_now();
        }
        Self { running, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream
    }

    pub(crate) fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("send");
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Answer::read(&mut BufReader::new(self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        ))))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.running.child.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("signal");
    }

    /// Waits for its end; the exit code, or the number of the signal that ended it below zero.
    pub(crate) fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.running.child.wait().expect("wait");
        status
            .code()
            .unwrap_or_else(|| -status.signal().expect("a signal"))
    }

    pub(crate) fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.running
            .child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut text)
            .expect("read");
        text
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(stream: &mut impl BufRead) -> Self {
        let mut line = String::new();
        stream.read_line(&mut line).expect("status line");
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("header");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let get = |wanted: &str| {
            headers
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let mut body = Vec::new();
        if let Some(length) = get("content-length") {
            body.resize(length.parse().expect("length"), 0);
            stream.read_exact(&mut body).expect("body");
        } else if get("transfer-encoding") == Some("chunked") {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size).expect("chunk size");
                let size = usize::from_str_radix(size.trim(), 16).expect("chunk size");
                let start = body.len();
                body.resize(start + size, 0);
                stream.read_exact(&mut body[start..]).expect("chunk");
                stream.read_exact(&mut [0; 2]).expect("end of chunk");
                if size == 0 {
                    break;
                }
            }
        }
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn closes(&self) -> bool {
        self.headers
            .iter()
            .any(|(name, value)| name == "connection" && value == "close")
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn requests_are_answered_with_the_same_grants_each() {
    for name in ["http-p2", "http-p3"] {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("file"), "content").expect("write");
        let server = Server::start(
            Guest::built(name)
                .env("GREETING", "ahoy")
                .directory(dir.path(), Access::ReadOnly),
        );
        for _ in 0..3 {
            let answer = server.get("/");
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert!(answer.text().contains(name), "{name}: {answer:?}");
            assert!(
                server.get("/env").text().contains("GREETING=ahoy"),
                "{name}"
            );
        }
        if name == "http-p2" {
            let path = dir.path().join("file");
            let answer = server.get(&format!("/file?path={}", path.display()));
            assert_eq!(answer.text(), "content", "{answer:?}");
            assert_eq!(server.get("/status/418").status, 418);
        }
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn bodies_are_streamed_both_ways() {
    for name in ["http-p2", "http-p3"] {
        let server = Server::start(Guest::built(name));
        let body: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut stream = server.send(&format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        std::thread::scope(|scope| {
            scope.spawn(|| stream.write_all(&body).expect("send"));
            let answer = Answer::read(&mut reader);
            assert_eq!(answer.status, 200, "{name}");
            assert!(
                answer.body == body,
                "{name}: {} of {} bytes",
                answer.body.len(),
                body.len()
            );
        });

        // The first piece comes back before the second is sent.
        let mut stream = server.send(
            "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        );
        let mut reader = BufReader::new(stream.try_clone().expect("clone"));
        let mut seen = String::new();
        while !seen.contains("first") {
            assert_ne!(
                reader.read_line(&mut seen).expect("read"),
                0,
                "{name}: {seen}"
            );
        }
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").expect("send");
        while !seen.contains("second") {
            assert_ne!(
                reader.read_line(&mut seen).expect("read"),
                0,
                "{name}: {seen}"
            );
        }
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_trap_fails_one_request_and_says_so_once() {
    for name in ["http-p2", "http-p3"] {
        let mut server = Server::start(Guest::built(name));
        assert_eq!(server.get("/").status, 200, "{name}");
        let answer = server.get("/trap");
        if name == "http-p3" && answer.status == 404 {
            continue;
        }
        assert_eq!(answer.status, 500, "{name}: {answer:?}");
        assert_eq!(server.get("/").status, 200, "{name}: goes on");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait(), 0);
        let stderr = server.stderr();
        let ours: Vec<_> = stderr
            .lines()
            .filter(|line| line.starts_with("sampan: "))
            .collect();
        assert_eq!(ours.len(), 1, "{name}: {stderr}");
        assert!(
            ours[0].contains("unreachable") && ours[0].contains("GET /trap"),
            "{name}: {stderr}"
        );
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn sigterm_finishes_what_is_in_flight_and_ends_with_0() {
    let mut server = Server::start(Guest::built("http-p2"));
    // Idle with keep-alive, opened and silent, and in flight.
    let mut idle = BufReader::new(server.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert!(!Answer::read(&mut idle).closes());
    let mut silent = server.connect();
    let mut slow = BufReader::new(server.send("GET /slow?ms=1500 HTTP/1.1\r\nHost: test\r\n\r\n"));
    // The guest has the request when another one that came later is answered.
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(idle.read(&mut [0]).expect("closed"), 0);
    assert_eq!(silent.read(&mut [0]).expect("closed"), 0);
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        std::thread::yield_now();
    }
    assert!(
        server.running.child.try_wait().expect("wait").is_none(),
        "waits for the slow one"
    );
    let answer = Answer::read(&mut slow);
    assert_eq!((answer.status, answer.closes()), (200, true), "{answer:?}");
    assert_eq!(server.wait(), 0);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let mut server = Server::start(Guest::built("http-p2"));
        let _slow = server.send("GET /slow?ms=20000 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(server.get("/").status, 200);
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        while TcpStream::connect(server.address).is_ok() {
            std::thread::yield_now();
        }
        server.signal(second);
        assert_eq!(server.wait(), code);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn http2_is_spoken_without_tls() {
    let mut server = Server::start(Guest::built("http-p2"));
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
        let request = |path: &str, body: &'static str| {
            http::Request::post(format!("http://test{path}"))
                .body(Full::<bytes::Bytes>::from(body))
                .expect("request")
        };
        let (one, two) = tokio::join!(
            sender.clone().send_request(request("/echo", "over two")),
            sender.send_request(request("/", "")),
        );
        let body = one
            .expect("answer")
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        assert_eq!(body, "over two");
        assert_eq!(two.expect("answer").version(), http::Version::HTTP_2);
        server.signal(Signal::SIGTERM);
        driver.await.expect("joined").expect("an orderly end");
    });
    assert_eq!(server.wait(), 0);
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = taken.local_addr().expect("address");
    let ended = Guest::built("http-p2").listen(address).run();
    assert_eq!(ended.code, Some(ExitCode::NotRunnable.into()));
    assert!(
        ended.stderr.contains(&address.to_string()),
        "{}",
        ended.stderr
    );
}
