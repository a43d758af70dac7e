//! A `wasi:http` 0.2 server: one route per behaviour. README.md of the guests lists them.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

/// Requests that this instance has seen: more than one only where the host reuses instances.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// How much `echo` asks for at a time, in bytes.
const PIECE: u64 = 65_536;

struct Server;

wasip2::http::proxy::export!(Server);

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = parameters(query);
        let asked = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();

        match path {
            "/" => answer(out, 200, "hello from http-p2\n"),
            "/env" => answer(out, 200, &environment()),
            "/args" => answer(out, 200, &arguments()),
            "/file" => match std::fs::read(asked("path")) {
                Ok(bytes) => respond(out, 200, |body| body.write_all(&bytes)),
                Err(error) => answer(out, 404, &format!("error: file: {error}\n")),
            },
            "/write" => match std::fs::write(asked("path"), asked("text")) {
                Ok(()) => answer(out, 200, "written\n"),
                Err(error) => answer(out, 403, &format!("error: write: {error}\n")),
            },
            "/echo" => echo(request, out),
            "/trailers" => trailers(request, out),
            "/headers" => answer(out, 200, &headers(&request)),
            "/request" => answer(out, 200, &line(&request, &target)),
            "/count" => answer(out, 200, &format!("{seen}\n")),
            "/slow" => {
                std::thread::sleep(Duration::from_millis(asked("ms").parse().unwrap_or(1000)));
                answer(out, 200, "slow but done\n");
            }
            "/stream" => stream(out, asked("n").parse().unwrap_or(10), asked("ms")),
            "/spin" => loop {
                std::hint::black_box(seen);
            },
            "/stdout" => {
                println!("{}", asked("text"));
                answer(out, 200, "printed\n");
            }
            "/stderr" => {
                eprintln!("{}", asked("text"));
                answer(out, 200, "printed\n");
            }
            "/trap" => core::arch::wasm32::unreachable(),
            "/panic" => panic!("http-p2 panics as asked"),
            "/exit" => std::process::exit(0),
            // Returns without an answer: the host has to make one.
            "/silent" => drop(out),
            "/fetch" => match fetch(asked("scheme"), asked("authority"), asked("path")) {
                Ok((status, bytes)) => respond(out, 200, |body| {
                    writeln!(body, "status {status}")?;
                    body.write_all(&bytes)
                }),
                Err(error) => answer(out, 502, &format!("error: fetch: {error}\n")),
            },
            _ => match path.strip_prefix("/status/").map(str::parse) {
                Some(Ok(status)) => answer(out, status, &format!("status {status}\n")),
                _ => answer(out, 404, "no such route\n"),
            },
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, text: &str) {
    respond(out, status, |body| body.write_all(text.as_bytes()));
}

/// Sends the status at once and then what `write` writes.
fn respond(
    out: ResponseOutparam,
    status: u16,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) {
    let headers = Fields::new();
    headers
        .set("x-guest", &[b"http-p2".to_vec()])
        .expect("x-guest is an ordinary header");
    let response = OutgoingResponse::new(headers);
    response
        .set_status_code(status)
        .expect("the status is a number that HTTP knows");
    let body = response.body().expect("the body is asked for once");
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().expect("the stream is asked for once");
    // A client that went away is no fault of the guest's.
    if write(&mut stream)
        .and_then(|()| Write::flush(&mut stream))
        .is_ok()
    {
        drop(stream);
        OutgoingBody::finish(body, None).expect("the body is as long as was promised");
    }
}

/// The request's body as it comes in, piece by piece.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("the body is asked for once");
    let stream = body.stream().expect("the stream is asked for once");
    respond(out, 200, |out| {
        // Ends with an error when the stream is closed, which is how WASI says "end".
        while let Ok(bytes) = stream.blocking_read(PIECE) {
            out.write_all(&bytes)?;
        }
        Ok(())
    });
}

/// Answers with the request's trailers as its body, and with a trailer of its own: `x-length`, the length of the
/// request's body.
fn trailers(request: IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("the body is asked for once");
    let stream = body.stream().expect("the stream is asked for once");
    let mut length = 0;
    while let Ok(bytes) = stream.blocking_read(PIECE) {
        length += bytes.len();
    }
    drop(stream);
    let later = IncomingBody::finish(body);
    later.subscribe().block();
    let trailers = later
        .get()
        .and_then(Result::ok)
        .and_then(Result::ok)
        .flatten();
    let headers = Fields::new();
    headers
        .set("trailer", &[b"x-length".to_vec()])
        .expect("trailer is an ordinary header");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("the body is asked for once");
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().expect("the stream is asked for once");
    for (name, value) in trailers.iter().flat_map(Fields::entries) {
        let line = format!("{name}: {}\n", String::from_utf8_lossy(&value));
        stream
            .write_all(line.as_bytes())
            .expect("the client reads the answer");
    }
    drop(stream);
    let own = Fields::new();
    own.set("x-length", &[length.to_string().into_bytes()])
        .expect("x-length is an ordinary header");
    OutgoingBody::finish(body, Some(own)).expect("the body is as long as was promised");
}

/// `count` lines with a pause before each, flushed one by one.
fn stream(out: ResponseOutparam, count: u64, milliseconds: &str) {
    let pause = Duration::from_millis(milliseconds.parse().unwrap_or(100));
    respond(out, 200, |body| {
        for number in 0..count {
            std::thread::sleep(pause);
            writeln!(body, "line {number}")?;
            body.flush()?;
        }
        Ok(())
    });
}

fn environment() -> String {
    std::env::vars().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name}={value}");
        text
    })
}

fn arguments() -> String {
    std::env::args().fold(String::new(), |mut text, argument| {
        let _ = writeln!(text, "{argument}");
        text
    })
}

fn headers(request: &IncomingRequest) -> String {
    let mut lines: Vec<String> = request
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(&value)))
        .collect();
    lines.sort();
    lines.concat()
}

/// Method, scheme, authority and target as the guest sees them.
fn line(request: &IncomingRequest, target: &str) -> String {
    format!(
        "{:?} {:?} {} {target}\n",
        request.method(),
        request.scheme(),
        request.authority().unwrap_or_default(),
    )
}

/// `GET SCHEME://AUTHORITY/PATH` (`https`, else `http`) through the host's outgoing handler: shows what egress is allowed.
fn fetch(scheme: &str, authority: &str, path: &str) -> Result<(u16, Vec<u8>), String> {
    let request = OutgoingRequest::new(Fields::new());
    let refused = |()| "the host refused the request's parts".to_string();
    request.set_method(&Method::Get).map_err(refused)?;
    let scheme = if scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    request.set_scheme(Some(&scheme)).map_err(refused)?;
    request.set_authority(Some(authority)).map_err(refused)?;
    let path = if path.is_empty() { "/" } else { path };
    request.set_path_with_query(Some(path)).map_err(refused)?;

    let pending = outgoing_handler::handle(request, None).map_err(|code| format!("{code:?}"))?;
    pending.subscribe().block();
    let response = pending
        .get()
        .expect("the wait is over")
        .expect("the answer is taken once")
        .map_err(|code| format!("{code:?}"))?;
    let body = response.consume().map_err(refused)?;
    let stream = body.stream().map_err(refused)?;
    let mut bytes = Vec::new();
    while let Ok(piece) = stream.blocking_read(PIECE) {
        bytes.extend(piece);
    }
    Ok((response.status(), bytes))
}

/// `a=1&b=2`, with `%XX` and `+` undone.
fn parameters(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match escape {
            Some(byte) => {
                bytes.push(byte);
                &tail[2..]
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
