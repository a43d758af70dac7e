//! `make bench`: how long shims take and what they cost, side by side in one run, through a real containerd.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program: the tables are its output, progress goes to stderr"
)]

mod client;
mod cluster;
mod cold;
mod containerd;
mod contestant;
mod counts;
mod figures;
mod footprint;
mod image;
mod life;
mod measure;
mod netns;
mod options;
mod plot;
mod programs;
mod promises;
mod real;
mod report;
mod run;
mod spans;
mod spec;
mod stage;
mod statistics;
mod task;

use anyhow::{Context as _, Result, ensure};

use crate::options::Options;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::read();
    if !options.cluster.is_empty() {
        return cluster::run(&options);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run the bench as root: containerd, namespaces and cgroups need it"
    );
    if let Some(bounds) = &options.counts {
        return counts::run(&options, bounds).await;
    }
    let report = run::run(&options).await?;
    print!("{}", report.render());
    let json = options
        .json
        .clone()
        .unwrap_or_else(|| stage::target_directory().join("bench.json"));
    std::fs::write(&json, serde_json::to_vec(&report)?)
        .with_context(|| format!("write {json:?}"))?;
    println!("\nEvery sample: {}", json.display());
    let plots = match &options.plots {
        Some(directory) => directory.clone(),
        None => json.with_extension(""),
    };
    for plot in plot::write(&report, &plots)? {
        println!("Plot: {}", plot.display());
    }
    ensure!(
        !report.has_failures(),
        "some measurements failed: see above"
    );
    Ok(())
}
