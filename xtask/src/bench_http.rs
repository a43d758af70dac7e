//! `cargo xtask bench-http`: builds the servers and measures them side by side (`test/bench/src/bin/http`).
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tools::{Tools, cache_dir};

use crate::tools::install_by_rename;
use crate::{bench, build, check, guests, step};

/// What `wasmtime serve` needs, and what its defaults use; everything else of the command line is left out.
const FEATURES: &str = "serve,run,cranelift,pooling-allocator,component-model,component-model-async,gc,gc-copying,gc-drc,gc-null,threads,parallel-compilation,logging,backtrace,wat,clap/default";

/// `arguments` go to the bench as they are.
pub(crate) fn run(shims: Option<PathBuf>, arguments: &[String]) -> Result<()> {
    if Tools::locate().is_err() {
        crate::tools::run()?;
    }
    let cache = cache_dir()?;
    guests::run(&["http-p2".to_owned()])?;
    let baseline = bench::baseline_dir(&cache)?;
    let wasmtime = wasmtime(&cache)?;
    let ours = shims.map_or_else(|| build::run(build::Processor::host()?, true), Ok)?;
    bench::measure("bench-http", |bench| {
        bench
            .args(arguments)
            .arg("--shims")
            .arg(ours)
            .arg("--shims")
            .arg(baseline)
            .arg("--wasmtime")
            .arg(wasmtime)
    })
}

/// The command line of the very wasmtime that the runner has, built once into the cache.
fn wasmtime(cache: &Path) -> Result<PathBuf> {
    let version = check::wasmtime()?;
    let target = cache.join("tools").join(format!("wasmtime-{version}"));
    if !target.exists() {
        install_by_rename(&target, |directory| {
            step::run(
                &format!("wasmtime {version} (release; ten minutes the first time)"),
                Command::new("cargo")
                    .args(["install", "wasmtime-cli", "--locked"])
                    .args(["--version", &format!("={version}")])
                    .args(["--no-default-features", "--features", FEATURES])
                    .arg("--root")
                    .arg(directory)
                    // What is left of the build goes with it.
                    .env("CARGO_TARGET_DIR", directory.join("build")),
            )?;
            std::fs::remove_dir_all(directory.join("build")).context("remove what the build left")
        })?;
    }
    Ok(target.join("bin/wasmtime"))
}
