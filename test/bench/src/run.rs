//! One run: who takes part, and one measurement after the other.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::containerd::{Containerd, Level};
use crate::contestant::{Contestant, KINDS, Kind, Packing};
use crate::measure::{Bench, Guest, order_of};
use crate::options::{Options, Part};
use crate::programs::{self, Hello};
use crate::report::{Conditions, Report, Results};
use crate::spans::Steps;
use crate::stage::{Stage, WARM_UPS, warm_up};
use crate::{cold, real};

/// How many pods are started at a time for pods per second.
const PODS_AT_ONCE: usize = 4;
/// How often: one of these takes a second or two, in which the machine's other doings weigh too much.
const PODS_ROUNDS: usize = 3;

/// Measures what the options ask for.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let kinds = wanted(options)?;
    let load_before = load();
    let stage = Stage::set(options)?;
    let hello = &stage.hello;
    let containerd = stage.containerd(Level::Info).await?;
    let mut bench = stage.stock(&containerd).await?;
    let mut report = Report {
        conditions: Conditions {
            containerd: containerd.version.clone(),
            kernel: nix::sys::utsname::uname()?
                .release()
                .to_string_lossy()
                .into_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            load_before,
            load_after: load_before,
            rounds: options.n,
            warm_ups: WARM_UPS,
            guest_native_bytes: hello.native.len(),
            guest_wasm_bytes: hello.module.wasm.len(),
        },
        ..Report::default()
    };
    let measured = async {
        let present = meet(&kinds, options, &stage.shims, &bench, &mut report).await?;
        measure_all(options, &present, &bench, &mut report).await?;
        real_programs(options, &present, &bench, hello, &mut report).await?;
        if options.wants(Part::Cold) {
            eprintln!("bench: cold starts");
            let contestants = of_layers(&present);
            report.cold = cold::measure(
                &bench,
                &contestants,
                &hello.module,
                options.few,
                options.drop_caches,
            )
            .await?;
        }
        anyhow::Ok(present)
    }
    .await;
    let present = measured
        .with_context(|| format!("containerd's last words: {}", containerd.last_lines()))?;
    bench.clear().await?;
    if options.wants(Part::Steps) {
        drop(containerd);
        let containerd = stage.containerd(Level::Debug).await?;
        bench.yard.channel = containerd.channel.clone();
        steps(options, &present, &bench, &containerd, &mut report).await?;
        bench.clear().await?;
    }
    report.conditions.load_after = load();
    Ok(report)
}

/// The contestants that were asked for, in the order of the tables.
fn wanted(options: &Options) -> Result<Vec<Kind>> {
    for name in &options.sides {
        ensure!(
            KINDS.iter().any(|kind| kind.name == name),
            "no contestant is called {name:?}"
        );
    }
    let named = |kind: &Kind| options.sides.iter().any(|name| name == kind.name);
    Ok(KINDS
        .into_iter()
        .filter(|kind| options.sides.is_empty() || named(kind))
        .filter(|kind| !kind.of_base || options.base.is_some())
        .collect())
}

/// Finds each contestant's shim and warms it up. Those that work.
async fn meet(
    kinds: &[Kind],
    options: &Options,
    shims: &[PathBuf],
    bench: &Bench<'_>,
    report: &mut Report,
) -> Result<Vec<Contestant>> {
    let mut present = Vec::new();
    for kind in kinds {
        let mut results = Results {
            name: kind.name,
            ..Results::default()
        };
        let located = match &options.base {
            Some(base) if kind.of_base => kind.locate(std::slice::from_ref(base)),
            _ => kind.locate(shims),
        };
        match located {
            None => results.absent = Some(format!("not built ({})", kind.shim)),
            Some(contestant) => {
                let program = contestant.program.display();
                eprintln!("bench: warming up {} ({program})", contestant.name);
                match warm_up(bench, &contestant).await {
                    Ok(()) => present.push(contestant),
                    Err(error) => {
                        eprintln!("bench: {} failed: {error:#}", contestant.name);
                        results.absent = Some("failed (see below)".to_owned());
                        results.fail("warm-up", &error);
                        bench.clear().await?;
                    }
                }
            }
        }
        report.contestants.push(results);
    }
    Ok(present)
}

async fn measure_all(
    options: &Options,
    present: &[Contestant],
    bench: &Bench<'_>,
    report: &mut Report,
) -> Result<()> {
    let anchors = bench.anchors(present).await?;
    if options.wants(Part::Latency) {
        eprintln!(
            "bench: latency, {} rounds of {} contestants",
            options.n,
            present.len()
        );
        let outcomes = bench.latency(present, options.n).await?;
        for (contestant, (latency, failure)) in present.iter().zip(outcomes) {
            let results = report.of(contestant.name);
            results.latency = Some(latency);
            if let Some(error) = failure {
                results.fail("latency", &error);
            }
        }
    }
    if options.wants(Part::Throughput) {
        for contestant in present {
            for &at_once in &options.at_once {
                eprintln!("bench: {at_once} tasks of {} at once", contestant.name);
                let measured = bench.throughput(contestant, at_once, options.tasks).await;
                let results = report.of(contestant.name);
                match measured {
                    Ok(throughput) => results.throughput.push(throughput),
                    Err(error) => {
                        results.fail(&format!("{at_once} at once"), &error);
                        bench.clear().await?;
                    }
                }
            }
        }
    }
    bench.weigh(anchors).await?;
    if options.wants(Part::Pods) {
        pods(bench, present, options.pods, 1, report).await?;
        for round in 0..PODS_ROUNDS {
            let order = order_of(round, present.len()).into_iter();
            let present: Vec<Contestant> = order.map(|place| present[place].clone()).collect();
            pods(bench, &present, options.pods, PODS_AT_ONCE, report).await?;
        }
    }
    if options.wants(Part::Many) {
        // The floor shows what of it is containerd's own.
        let few: Vec<Contestant> = of_layers(present)
            .into_iter()
            .filter(|contestant| contestant.name != "baseline")
            .collect();
        pods(bench, &few, options.many, 1, report).await?;
    }
    Ok(())
}

/// Those for which the guest is an image's layer, and the floor.
fn of_layers(present: &[Contestant]) -> Vec<Contestant> {
    present
        .iter()
        .filter(|contestant| matches!(contestant.packing, Packing::Nothing | Packing::Layer))
        .cloned()
        .collect()
}

async fn pods(
    bench: &Bench<'_>,
    contestants: &[Contestant],
    pods: usize,
    at_once: usize,
    report: &mut Report,
) -> Result<()> {
    for contestant in contestants {
        eprintln!(
            "bench: {pods} pods of {}, {at_once} at once",
            contestant.name
        );
        bench.no_supervisor(contestant).await?;
        let measured = bench.density(contestant, &bench.hello, pods, at_once).await;
        let results = report.of(contestant.name);
        match measured {
            Ok(density) => results.densities.push(density),
            Err(error) => {
                results.fail(&format!("{pods} pods, {at_once} at once"), &error);
                bench.clear().await?;
            }
        }
    }
    Ok(())
}

async fn real_programs(
    options: &Options,
    present: &[Contestant],
    bench: &Bench<'_>,
    hello: &Hello,
    report: &mut Report,
) -> Result<()> {
    if !options.wants(Part::Programs) {
        return Ok(());
    }
    let directory = match &options.guests {
        Some(directory) => directory.clone(),
        None => tools::cache_dir()?.join("guests"),
    };
    let (real, missing) = programs::real(&directory)?;
    report.missing_programs = missing;
    let mut guests = Vec::new();
    for (number, program) in std::iter::once(&hello.component).chain(&real).enumerate() {
        let tag = format!("real-{number}");
        guests.push(Guest::artifact(&bench.yard, &tag, program).await?);
    }
    let guests: Vec<&Guest> = std::iter::once(&bench.hello).chain(&guests).collect();
    let contestants: Vec<Contestant> = of_layers(present)
        .into_iter()
        .filter(|contestant| contestant.packing == Packing::Layer)
        .collect();
    report.real =
        real::measure(bench, &contestants, &guests, options.few, options.real_pods).await?;
    Ok(())
}

/// Some rounds of ours with a containerd that logs at level debug.
async fn steps(
    options: &Options,
    present: &[Contestant],
    bench: &Bench<'_>,
    containerd: &Containerd,
    report: &mut Report,
) -> Result<()> {
    let ours: Vec<Contestant> = present
        .iter()
        .filter(|contestant| contestant.name.starts_with("sampan"))
        .cloned()
        .collect();
    eprintln!(
        "bench: steps, {} rounds of {} contestants",
        options.few,
        ours.len()
    );
    for contestant in &ours {
        bench.once(contestant, &bench.hello).await?;
        // The log of the next one is that of a container which stays.
        bench.no_supervisor(contestant).await?;
    }
    let anchors = bench.anchors(&ours).await?;
    let outcomes = bench.latency(&ours, options.few).await?;
    bench.weigh(anchors).await?;
    // A supervisor's last lines come with its end.
    for contestant in &ours {
        bench.no_supervisor(contestant).await?;
    }
    let log = containerd.log()?;
    for (contestant, (latency, failure)) in ours.iter().zip(outcomes) {
        let results = report.of(contestant.name);
        results.steps = Steps::of(&log, contestant.name);
        results.logged_latency = Some(latency);
        if let Some(error) = failure {
            results.fail("steps", &error);
        }
        // A base that tells of no steps is no failure; ours are there or the spans have changed.
        ensure!(
            !results.steps.is_empty(),
            "no step of {} is in containerd's log",
            contestant.name
        );
    }
    Ok(())
}

/// Load average of the last minute; 0 where it cannot be read.
fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or_default()
}
