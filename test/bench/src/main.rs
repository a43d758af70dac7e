//! `make bench`: how long shims take and what they cost, side by side in one run, through a real containerd.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program: the tables are its output, progress goes to stderr"
)]

mod cgroup;
mod client;
mod containerd;
mod contestant;
mod figures;
mod footprint;
mod image;
mod measure;
mod netns;
mod programs;
mod report;
mod spec;
mod task;

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::cgroup::CgroupParent;
use crate::containerd::Containerd;
use crate::contestant::{ALL, Contestant};
use crate::measure::{Bench, Images};
use crate::netns::NetworkNamespace;
use crate::programs::Programs;
use crate::report::{Conditions, Report, Results};
use crate::task::Yard;

/// Measures shims side by side: start-up, throughput, memory.
#[derive(Debug, Parser)]
struct Options {
    /// Contestants, in the order of the tables: floor, runc, baseline, sampan, baseline-file, sampan-file.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "floor,runc,baseline,sampan,baseline-file,sampan-file"
    )]
    sides: Vec<String>,
    /// Tasks of each contestant for the latencies.
    #[arg(long, default_value_t = 60)]
    n: usize,
    /// Pods of each contestant for the footprint.
    #[arg(long, default_value_t = 50)]
    pods: usize,
    /// Tasks of each contestant for each throughput.
    #[arg(long, default_value_t = 48)]
    tasks: usize,
    /// How many tasks run at once for the throughputs.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    at_once: Vec<usize>,
    /// Milliseconds between two tasks of the latencies.
    #[arg(long, default_value_t = 20)]
    pause_ms: u64,
    /// A look instead of a measurement: n 10, 5 pods, 16 tasks.
    #[arg(long)]
    quick: bool,
    /// Directories with the shims of the contestants, searched in this order before the built-in ones.
    #[arg(long, value_delimiter = ',')]
    shims: Vec<PathBuf>,
    /// Where the raw data goes [default: bench.json in cargo's target directory].
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Tasks of each contestant before anything is measured: page cache, compiled artifacts.
const WARM_UPS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.n = options.n.min(10);
        options.pods = options.pods.min(5);
        options.tasks = options.tasks.min(16);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run the bench as root: containerd, namespaces and cgroups need it"
    );
    let contestants = options
        .sides
        .iter()
        .map(|name| {
            ALL.into_iter()
                .find(|contestant| contestant.name == name)
                .with_context(|| format!("no contestant is called {name:?}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let report = run(&options, &contestants).await?;
    print!("{}", report.render());
    let json = options
        .json
        .unwrap_or_else(|| target_directory().join("bench.json"));
    std::fs::write(&json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("write {json:?}"))?;
    println!("\nEvery sample: {}", json.display());
    ensure!(
        !report.has_failures(),
        "some measurements failed: see above"
    );
    Ok(())
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

async fn run(options: &Options, contestants: &[Contestant]) -> Result<Report> {
    let tools = tools::Tools::locate()?;
    let cache = tools::cache_dir()?;
    let shims = shim_directories(options, &tools, &cache);
    let runs = cache.join("run");
    std::fs::create_dir_all(&runs).with_context(|| format!("create {runs:?}"))?;
    let directory = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&runs)
        .context("make the run directory")?;
    let load_before = load();
    eprintln!("bench: building the guest");
    let programs = Programs::build(directory.path())?;
    let network = NetworkNamespace::create(directory.path().join("netns"))?;
    let containerd = Containerd::start(
        &tools.containerd_2.containerd,
        &shims,
        directory.path().join("c"),
    )
    .await?;
    let cgroup = CgroupParent::of_this_run();
    let bench = Bench {
        serial: Cell::new(0),
        pause: Duration::from_millis(options.pause_ms),
        images: Images {
            native: image::rootfs(
                &containerd.channel,
                "localhost/hello:native",
                "hello",
                &programs.native,
            )
            .await?,
            artifact: image::artifact(
                &containerd.channel,
                "localhost/hello:artifact",
                &programs.wasm,
            )
            .await?,
            file: image::rootfs(
                &containerd.channel,
                "localhost/hello:file",
                "hello.wasm",
                &programs.wasm,
            )
            .await?,
        },
        yard: Yard {
            channel: containerd.channel.clone(),
            directory: directory.path().to_owned(),
            network: network.path().to_owned(),
            cgroup: cgroup.path(),
        },
    };
    let measured = measure_all(options, contestants, &shims, &bench, &containerd).await;
    let left = task::sweep(&containerd.channel).await?;
    if !left.is_empty() {
        eprintln!("bench: could not be removed: {}", left.join(", "));
    }
    let results = measured
        .with_context(|| format!("containerd's last words: {}", containerd.last_lines()))?;
    Ok(Report {
        conditions: Conditions {
            containerd: containerd.version.clone(),
            kernel: nix::sys::utsname::uname()?
                .release()
                .to_string_lossy()
                .into_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            load_before,
            load_after: load(),
            rounds: options.n,
            warm_ups: WARM_UPS,
            guest_native_bytes: programs.native.len(),
            guest_wasm_bytes: programs.wasm.len(),
        },
        contestants: results,
    })
}

/// Given ones, then the bench's own (the floor lies beside it), the cache's baseline, our release build, and runc's.
fn shim_directories(
    options: &Options,
    tools: &tools::Tools,
    cache: &std::path::Path,
) -> Vec<PathBuf> {
    let mut directories = options.shims.clone();
    if let Some(own) = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_owned()))
    {
        directories.push(own);
    }
    directories.push(cache.join("baseline-target/release"));
    directories.push(target_directory().join(format!(
        "{}-unknown-linux-musl/release",
        std::env::consts::ARCH
    )));
    directories.push(tools.containerd_2.dir.clone());
    directories.extend(tools.runc.parent().map(ToOwned::to_owned));
    directories
}

async fn measure_all(
    options: &Options,
    contestants: &[Contestant],
    shims: &[PathBuf],
    bench: &Bench,
    containerd: &Containerd,
) -> Result<Vec<Results>> {
    let mut results: Vec<Results> = Vec::new();
    let mut present: Vec<Contestant> = Vec::new();
    for contestant in contestants {
        let mut broken = None;
        let absent = match contestant.locate(shims) {
            None => Some(format!("not built ({})", contestant.shim)),
            Some(shim) => {
                eprintln!("bench: warming up {} ({})", contestant.name, shim.display());
                let warmed = warm_up(bench, contestant).await;
                if let Err(error) = &warmed {
                    eprintln!("bench: {} failed: {error:#}", contestant.name);
                    task::sweep(&containerd.channel).await?;
                }
                broken = warmed.err().map(|error| format!("warm-up: {error:#}"));
                broken.as_ref().map(|_| "failed (see below)".to_owned())
            }
        };
        if absent.is_none() {
            present.push(*contestant);
        }
        results.push(Results {
            name: contestant.name,
            failures: broken.into_iter().collect(),
            absent,
            ..Results::default()
        });
    }
    eprintln!(
        "bench: latency, {} rounds of {} contestants",
        options.n,
        present.len()
    );
    let latencies = bench.latency(&present, options.n).await?;
    for (contestant, latency) in present.iter().zip(latencies) {
        result_of(&mut results, contestant).latency = Some(latency);
    }
    for contestant in &present {
        for &at_once in &options.at_once {
            eprintln!(
                "bench: throughput of {}, {at_once} at once",
                contestant.name
            );
            let measured = bench.throughput(contestant, at_once, options.tasks).await;
            let result = result_of(&mut results, contestant);
            match measured {
                Ok(throughput) => result.throughput.push(throughput),
                Err(error) => {
                    result.fail(&format!("{at_once} at once"), &error);
                    task::sweep(&containerd.channel).await?;
                }
            }
        }
    }
    for contestant in &present {
        eprintln!("bench: {} pods of {}", options.pods, contestant.name);
        let measured = bench
            .density(contestant, options.pods, containerd.socket())
            .await;
        let result = result_of(&mut results, contestant);
        match measured {
            Ok(density) => result.density = Some(density),
            Err(error) => {
                result.fail("pods", &error);
                task::sweep(&containerd.channel).await?;
            }
        }
    }
    Ok(results)
}

async fn warm_up(bench: &Bench, contestant: &Contestant) -> Result<()> {
    for _ in 0..WARM_UPS {
        bench.once(contestant).await?;
    }
    Ok(())
}

#[allow(clippy::expect_used, reason = "every contestant got its results above")]
fn result_of<'r>(results: &'r mut [Results], contestant: &Contestant) -> &'r mut Results {
    results
        .iter_mut()
        .find(|result| result.name == contestant.name)
        .expect("a contestant without results")
}

/// Load average of the last minute; 0 where it cannot be read.
fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default()
}
