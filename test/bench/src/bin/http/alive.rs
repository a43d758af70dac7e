//! Many requests at the same moment, each with an instance of its own.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use harness::proc;
use serde::Serialize;
use tokio::net::TcpStream;

use crate::load;
use crate::server::Yard;

/// Connections that are opened at once; more would only wait in the kernel.
const AT_ONCE: usize = 64;
/// How long the guest stays in the midst of its answer: until the client goes.
const PATH: &str = "/stream?n=1&ms=600000";
/// How long the memory of guests that have ended may take to come back.
const AFTERWARDS: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Requests.
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// Requests that were in the midst of their answers.
    pub(crate) requests: usize,
    /// Seconds until all were.
    pub(crate) seconds: f64,
    pub(crate) before: Memory,
    /// While all were.
    pub(crate) during: Memory,
    /// When the clients had gone.
    pub(crate) after: Memory,
}

/// What the server's process takes.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// Proportional set size, in bytes.
    pub(crate) pss: u64,
    /// Page tables, in bytes, which no set size counts.
    pub(crate) page_tables: u64,
    /// What the machine has left, in bytes; sockets and the client's side are in it.
    pub(crate) available: u64,
    /// Mappings; the kernel allows `vm.max_map_count` of them.
    pub(crate) mappings: usize,
    /// Open descriptors.
    pub(crate) descriptors: usize,
}

/// # Errors
/// When not all requests are answered at the same time.
pub(crate) async fn run(options: &Options, shims: &[PathBuf]) -> Result<Results> {
    let yard = Yard::new(shims).await?;
    let settings = [("max-concurrent-requests", options.requests.to_string())];
    let server = yard.start_sampan(settings.into_iter()).await?;
    // One, so that what is made at the first request is not counted with the others.
    drop(begun(&server).await?);
    let before = Memory::of(server.pid())?;
    let zero = Instant::now();
    // Whoever has the head of its answer has an instance: nobody else can have written it, and it waits before it ends.
    let held: Vec<TcpStream> = stream::iter((0..options.requests).map(|_| begun(&server)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
        .with_context(|| format!("hold {} requests", options.requests))?;
    let seconds = zero.elapsed().as_secs_f64();
    let during = Memory::of(server.pid())?;
    let requests = held.len();
    drop(held);
    tokio::time::sleep(AFTERWARDS).await;
    let after = Memory::of(server.pid())?;
    server.end().await?;
    yard.containerd.assert_clean().await?;
    Ok(Results {
        requests,
        seconds,
        before,
        during,
        after,
    })
}

async fn begun(server: &crate::server::Server<'_>) -> Result<TcpStream> {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = load::connect(server.address).await?;
    stream
        .write_all(&load::request(server.address, PATH))
        .await
        .context("send")?;
    load::head(&mut stream).await?;
    Ok(stream)
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let kilobytes = |file: &str, field: &str| {
            proc::field(pid, file, field)
                .with_context(|| format!("find {field} in {file} of process {pid}"))
        };
        let maps = format!("/proc/{pid}/maps");
        Ok(Self {
            pss: kilobytes("smaps_rollup", "Pss:")? << 10,
            page_tables: kilobytes("status", "VmPTE:")? << 10,
            available: proc::available_kb()? << 10,
            mappings: fs::read_to_string(&maps)
                .with_context(|| format!("read {maps}"))?
                .lines()
                .count(),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        })
    }
}
