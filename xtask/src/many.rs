//! `cargo xtask many`: how many pods this machine carries (`test/bench/src/bin/many.rs`).
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Processor, checkout};
use crate::{guests, step, tools};

/// `arguments` go to the program as they are (`--pods 1000`, `--handler sampan-dense`).
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch()?;
    guests::build(&["probe".to_owned()])?;
    let shims = match std::env::var_os("SAMPAN_SHIM_DIR") {
        Some(named) => named.into(),
        None => build::run(Processor::host()?, true)?,
    };
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout());
    step::run(
        "the program that counts",
        cargo.args(["build", "--locked", "--package", "bench", "--bin", "many"]),
    )?;
    let status = Command::new(build::target_dir().join("debug/many"))
        .args(arguments)
        .env("SAMPAN_SHIM_DIR", shims)
        .status()
        .context("start it")?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    Ok(())
}
