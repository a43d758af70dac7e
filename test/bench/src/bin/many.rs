//! How many pods a node carries: pods of CRI, each with a sleeping guest, all alive together.
//!
//! It tells what they took of the node's memory, process by process and as a whole, how long it took to start and to
//! remove them, and fails when one of them does not run or anything is left.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "a command line tool: its output is its purpose"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use futures::stream::{self, StreamExt, TryStreamExt};
use harness::{Containerd, Cri, Handler, Pod, Registry, get, guest, image, proc, said, until};
use k8s_cri::v1::{ContainerState, ListContainersRequest};
use serde::Serialize;
use tokio::process::Command;

/// Longer than any run.
const SLEEP_MS: &str = "86400000";
/// How long the node is left alone before its memory is read.
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(
    name = "many",
    about = "Pods of CRI with a sleeping guest each, all alive together"
)]
struct Arguments {
    /// How many pods
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Runtime handler: sampan or sampan-dense
    #[arg(long, default_value = "sampan-dense")]
    handler: String,
    /// How many are started, and removed, at the same time
    #[arg(long, default_value_t = 4)]
    at_once: usize,
    /// Leave the pods in the host's network: a Linux bridge has 1023 ports
    #[arg(long)]
    host_network: bool,
    /// Ask the node program for its numbers while all are there, so many times (`cargo build -p node` first)
    #[arg(long, default_value_t = 0)]
    scrapes: usize,
    /// Write the numbers to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What one run showed. Memory in kB, times in seconds.
#[derive(Serialize)]
struct Seen {
    handler: String,
    pods: usize,
    at_once: usize,
    host_network: bool,
    start_s: f64,
    remove_s: f64,
    /// `MemAvailable` of the node before the first pod, less that with all of them.
    taken_kb: i64,
    /// The same when all pods are gone: what containerd and the kernel keep.
    kept_kb: i64,
    /// Our processes that were not there before, by the name of their program.
    programs: BTreeMap<String, Program>,
    /// What each scrape of the node program took, in milliseconds, and how many series it had.
    scrapes: Vec<(f64, usize)>,
}

/// The processes of one program.
#[derive(Default, Serialize)]
struct Program {
    processes: u64,
    threads: u64,
    pss_kb: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let registry = Registry::start()?;
    let containerd = Containerd::builder()
        .registry(&registry)
        .handler(Handler::new(
            "sampan-dense",
            "io.containerd.sampan-dense.v1",
        ))
        .start()
        .await?;
    let image = image::cncf(guest("probe.wasm")?, "wasip1");
    let image = registry.push("sleeper:v1", &image).await?;
    let cri = containerd.cri().await?;
    cri.pull(&image).await?;
    // The first pod of an image compiles it.
    remove(start(&cri, &arguments, &image).await?).await?;

    let others = proc::processes()?.into_iter().collect();
    let before = available_kb()?;
    let began = Instant::now();
    let started = stream::iter(0..arguments.pods)
        .map(|_| start(&cri, &arguments, &image))
        .buffer_unordered(arguments.at_once)
        .try_collect::<Vec<_>>()
        .await;
    let pods = match started {
        Ok(pods) => pods,
        Err(error) => {
            let running = running(&cri).await?;
            cri.remove_all_pods().await?;
            return Err(error.context(format!("start a pod beside {running} others")));
        }
    };
    let start_s = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    let taken_kb = before - available_kb()?;
    let programs = programs(&others)?;
    let running = running(&cri).await?;
    let scrapes = scraped(&containerd.socket(), arguments.scrapes).await?;
    let began = Instant::now();
    stream::iter(pods)
        .map(remove)
        .buffer_unordered(arguments.at_once)
        .try_collect::<()>()
        .await?;
    let remove_s = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    let kept_kb = before - available_kb()?;
    containerd.assert_clean().await?;
    if running != arguments.pods {
        bail!("{running} of {} containers were running", arguments.pods);
    }
    let seen = Seen {
        handler: arguments.handler,
        pods: running,
        at_once: arguments.at_once,
        host_network: arguments.host_network,
        start_s,
        remove_s,
        taken_kb,
        kept_kb,
        programs,
        scrapes,
    };
    show(&seen);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&seen).context("render the numbers")?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// A pod whose guest runs.
async fn start<'a>(cri: &Cri<'a>, arguments: &Arguments, image: &str) -> Result<Pod<'a>> {
    let mut pod = cri.pod(&arguments.handler);
    if arguments.host_network {
        pod = pod.host_network();
    }
    let pod = pod.run().await?;
    let container = pod
        .container("sleeper", image)
        .command(["/", "sleep", SLEEP_MS])
        .create()
        .await
        .context("create the container")?;
    container.start().await.context("start the container")?;
    Ok(pod)
}

async fn remove(pod: Pod<'_>) -> Result<()> {
    pod.remove().await.context("remove a pod")
}

async fn running(cri: &Cri<'_>) -> Result<usize> {
    let containers = cri
        .runtime()
        .list_containers(ListContainersRequest::default())
        .await
        .context("list the containers")?
        .into_inner()
        .containers;
    Ok(containers
        .iter()
        .filter(|it| it.state() == ContainerState::ContainerRunning)
        .count())
}

fn available_kb() -> Result<i64> {
    i64::try_from(proc::available_kb()?).context("reckon with so much memory")
}

/// Those of ours that were not there before. Who ends while we look has no share in anything.
fn programs(others: &BTreeSet<u32>) -> Result<BTreeMap<String, Program>> {
    let mut programs = BTreeMap::<String, Program>::new();
    for pid in proc::processes()? {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // As the kernel cuts names: supervisors and holders are one.
        let ours = ["containerd-shim", "sampan-runner"].contains(&name.trim());
        if others.contains(&pid) || !ours {
            continue;
        }
        let Some(pss_kb) = proc::pss_kb(pid) else {
            continue;
        };
        let program = programs.entry(name.trim().to_owned()).or_default();
        program.processes += 1;
        program.threads += proc::threads(pid).unwrap_or_default();
        program.pss_kb += pss_kb;
    }
    Ok(programs)
}

/// Starts the node program for this containerd, and asks it for its numbers.
async fn scraped(socket: &Path, times: usize) -> Result<Vec<(f64, usize)>> {
    if times == 0 {
        return Ok(Vec::new());
    }
    let mut program = Command::new(harness::built_dir()?.join("sampan-node"))
        .args([
            "watch",
            "--no-kubernetes",
            "--host=/",
            "--listen=127.0.0.1:0",
        ])
        .arg(format!("--containerd-socket={}", socket.display()))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start the node program")?;
    let stderr = program.stderr.take().context("it has a standard error")?;
    let (address, _) = said(stderr, "listening on ").await?;
    let address = address.trim().parse()?;
    // It has to find the run directory first.
    until(
        "the node program to see containers",
        SETTLED * 4,
        async || {
            let text = get(address, "/metrics").await?.text();
            Ok(text
                .contains("sampan_container_memory_bytes{")
                .then_some(()))
        },
    )
    .await?;
    let mut all = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let text = get(address, "/metrics").await?.text();
        let took = began.elapsed().as_secs_f64() * 1e3;
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        all.push((took, series));
    }
    program.kill().await.context("end the node program")?;
    Ok(all)
}

fn show(seen: &Seen) {
    let each = |kb: i64| kb as f64 / seen.pods as f64 / 1024.0;
    println!(
        "{} pods of {} ({} at once): started in {:.1} s, removed in {:.1} s",
        seen.pods, seen.handler, seen.at_once, seen.start_s, seen.remove_s
    );
    println!(
        "the node's available memory: {:.2} MiB less per pod; {:.2} MiB per pod still missing when all were gone",
        each(seen.taken_kb),
        each(seen.kept_kb)
    );
    for (milliseconds, series) in &seen.scrapes {
        println!("a scrape of {series} series: {milliseconds:.1} ms");
    }
    println!("\n| program | processes | threads | PSS per pod, MiB |\n|---|---|---|---|");
    for (name, program) in &seen.programs {
        println!(
            "| {name} | {} | {} | {:.3} |",
            program.processes,
            program.threads,
            each(i64::try_from(program.pss_kb).unwrap_or(i64::MAX))
        );
    }
}
