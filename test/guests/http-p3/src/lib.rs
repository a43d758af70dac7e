//! A `wasi:http` 0.3 server: one route per behaviour. README.md of the guests lists them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{spawn_local, wit_future, wit_stream};

/// Requests that this instance has seen: more than one only where the host reuses instances.
static SEEN: AtomicU64 = AtomicU64::new(0);

struct Server;

wasip3::http::service::export!(Server);

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let asked = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(found, value)| (found == name).then(|| value.to_string()))
                .unwrap_or_default()
        };

        Ok(match path {
            "/" => answer(200, "hello from http-p3\n"),
            "/env" => answer(200, &environment()),
            "/args" => answer(200, &arguments()),
            "/file" => match std::fs::read(asked("path")) {
                Ok(bytes) => respond(200, bytes),
                Err(error) => answer(404, &format!("error: file: {error}\n")),
            },
            "/echo" => echo(request),
            "/count" => answer(200, &format!("{seen}\n")),
            "/slow" => {
                let milliseconds: u64 = asked("ms").parse().unwrap_or(1000);
                monotonic_clock::wait_for(milliseconds * 1_000_000).await;
                answer(200, "slow but done\n")
            }
            "/stdout" => {
                println!("{}", asked("text"));
                answer(200, "printed\n")
            }
            "/stderr" => {
                eprintln!("{}", asked("text"));
                answer(200, "printed\n")
            }
            "/trap" => core::arch::wasm32::unreachable(),
            "/refuse" => return Err(ErrorCode::InternalError(Some("as asked".to_string()))),
            _ => match path.strip_prefix("/status/").map(str::parse) {
                Some(Ok(status)) => answer(status, &format!("status {status}\n")),
                _ => answer(404, "no such route\n"),
            },
        })
    }
}

fn answer(status: u16, text: &str) -> Response {
    respond(status, text.as_bytes().to_vec())
}

fn respond(status: u16, bytes: Vec<u8>) -> Response {
    let (mut sender, receiver) = wit_stream::new();
    let (trailers, trailers_later) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers(), Some(receiver), trailers_later);
    response
        .set_status_code(status)
        .expect("the status is a number that HTTP knows");
    drop(trailers);
    spawn_local(async move {
        // What is left belongs to a client that went away: no fault of the guest's.
        let _left = sender.write_all(bytes).await;
    });
    response
}

/// The request's own body stream becomes the answer's: nothing is copied in the guest.
fn echo(request: Request) -> Response {
    let (consumed, consumed_later) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, consumed_later);
    drop(consumed);
    let (response, _sent) = Response::new(headers(), Some(body), trailers);
    response
}

fn headers() -> Fields {
    Fields::from_list(&[("x-guest".to_string(), b"http-p3".to_vec())])
        .expect("x-guest is an ordinary header")
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
