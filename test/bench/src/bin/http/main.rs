//! `cargo xtask bench-http`: what a pod that serves costs, beside others that serve the same component.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program: the tables are its output, progress goes to stderr"
)]

mod alive;
mod compare;
mod load;
mod report;
mod server;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

/// Measures servers of wasi:http components: requests per second and latencies side by side, and how much memory a
/// request takes while it is answered.
#[derive(Debug, Parser)]
#[command(name = "bench-http")]
struct Options {
    #[command(subcommand)]
    what: What,
    /// Directories with the shims, searched in this order.
    #[arg(long, value_delimiter = ',', global = true)]
    shims: Vec<PathBuf>,
    /// The `wasmtime` to compare with.
    #[arg(long, global = true)]
    wasmtime: Option<PathBuf>,
    /// Where the raw data goes [default: bench-http.json in cargo's target directory].
    #[arg(long, global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Servers side by side, interleaved.
    Compare(compare::Options),
    /// Requests that are all answered at the same moment, each by an instance of its own.
    Alive(alive::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run the bench as root: containerd, namespaces and cgroups need it"
    );
    let results = match &options.what {
        What::Compare(what) => {
            let results = compare::run(what, &options.shims, options.wasmtime.as_deref()).await?;
            print!("{}", report::compared(&results));
            serde_json::to_vec_pretty(&results)?
        }
        What::Alive(what) => {
            let results = alive::run(what, &options.shims).await?;
            print!("{}", report::alive(&results));
            serde_json::to_vec_pretty(&results)?
        }
    };
    let json = options.json.unwrap_or_else(|| {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from("target"), PathBuf::from)
            .join("bench-http.json")
    });
    std::fs::write(&json, results).with_context(|| format!("write {}", json.display()))?;
    println!("\nRaw data: {}", json.display());
    Ok(())
}
