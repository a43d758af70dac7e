//! Load: connections that are kept open, each with one request after another.
//!
//! A client of its own, on one thread, which reads no more of an answer than where it ends: on a machine that client and
//! server share, what a client takes is missing from every server, and makes them look alike.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the first byte after a head ends.
const HEAD: &[u8] = b"\r\n\r\n";
/// The end of a body in pieces.
const LAST_PIECE: &[u8] = b"0\r\n\r\n";
/// Bytes of the longest answer that this client understands.
const LONGEST: usize = 16 << 10;

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Load {
    /// Requests that were answered.
    pub(crate) requests: usize,
    /// Seconds that it took.
    pub(crate) seconds: f64,
    /// Microseconds from a request to its whole answer: of half, of 99 of 100, of 999 of 1000 requests not more.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    fn of(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        // Nearest rank, in thousandths.
        let quantile = |thousandths: usize| {
            let rank = (latencies.len() * thousandths).div_ceil(1000).max(1);
            latencies
                .get(rank - 1)
                .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        Self {
            requests: latencies.len(),
            seconds: took.as_secs_f64(),
            p50: quantile(500),
            p99: quantile(990),
            p999: quantile(999),
        }
    }
}

/// Asks a server for `path` on so many connections, as fast as it answers.
///
/// # Errors
/// When an answer is not 200, or does not end.
pub(crate) async fn run(
    server: SocketAddr,
    path: &str,
    connections: usize,
    time: Duration,
) -> Result<Load> {
    let request = request(server, path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    tokio::task::spawn_blocking(move || {
        let result = runtime.block_on(async {
            let mut streams = Vec::with_capacity(connections);
            for _ in 0..connections {
                streams.push(connect(server).await?);
            }
            let begun = Instant::now();
            let mut clients = JoinSet::new();
            for stream in streams {
                clients.spawn(client(stream, request.clone(), begun + time));
            }
            let mut latencies = Vec::new();
            while let Some(client) = clients.join_next().await {
                latencies.extend(client??);
            }
            anyhow::Ok(Load::of(latencies, begun.elapsed()))
        });
        result.with_context(|| format!("load {server}"))
    })
    .await?
}

pub(crate) fn request(server: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").into_bytes()
}

pub(crate) async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server)
        .await
        .with_context(|| format!("connect to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn client(mut stream: TcpStream, request: Vec<u8>, until: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(latencies);
        }
        stream.write_all(&request).await.context("send")?;
        let mut filled = 0;
        while !is_complete(&buffer[..filled])? {
            let count = stream.read(&mut buffer[filled..]).await.context("read")?;
            ensure!(count > 0, "the answer ends early");
            filled += count;
        }
        latencies.push(begun.elapsed());
    }
}

/// Reads until the end of a head, with whatever of the body comes with it.
pub(crate) async fn head(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = vec![0; LONGEST];
    let mut filled = 0;
    while head_length(&buffer[..filled])?.is_none() {
        let count = stream.read(&mut buffer[filled..]).await.context("read")?;
        ensure!(count > 0, "the answer ends early");
        filled += count;
    }
    Ok(())
}

/// Where the head ends, if it does; an error unless it says 200.
fn head_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(HEAD.len()).position(|part| part == HEAD) else {
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        bail!("the answer is {:?}", String::from_utf8_lossy(bytes));
    }
    Ok(Some(end + HEAD.len()))
}

/// Whether a whole answer has come: of a length that its head names, or in pieces.
fn is_complete(bytes: &[u8]) -> Result<bool> {
    const LENGTH: &[u8] = b"\r\ncontent-length: ";
    let Some(length) = head_length(bytes)? else {
        return Ok(false);
    };
    let (head, body) = bytes.split_at(length);
    let named = head
        .windows(LENGTH.len())
        .position(|part| part.eq_ignore_ascii_case(LENGTH));
    Ok(match named {
        None => body.ends_with(LAST_PIECE),
        Some(at) => {
            let digits = head[at + LENGTH.len()..]
                .split(|byte| *byte == b'\r')
                .next();
            let digits = std::str::from_utf8(digits.unwrap_or_default())?;
            body.len() >= digits.parse::<usize>().context("read the length")?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_by_its_length_or_its_last_piece() {
        for (answer, complete) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-len", false),
        ] {
            assert_eq!(
                is_complete(answer.as_bytes()).expect("200"),
                complete,
                "{answer:?}"
            );
        }
        assert!(is_complete(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
    }

    #[test]
    fn quantiles_are_latencies_by_nearest_rank() {
        let load = Load::of(
            (1..=1000).rev().map(Duration::from_micros).collect(),
            Duration::from_secs(2),
        );
        let close = |value: f64, wanted: f64| (value - wanted).abs() < 1e-6;
        assert!(close(load.p50, 500.0) && close(load.p99, 990.0) && close(load.p999, 999.0));
        assert!(close(load.per_second(), 500.0));
    }
}
