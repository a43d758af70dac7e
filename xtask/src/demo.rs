//! `cargo xtask demo`: brings together what `test/demo` shows, and runs it.
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Processor, checkout};
use crate::{guests, step, tools};

/// The guests that the demo shows.
const GUESTS: [&str; 3] = ["hello", "http-p2", "probe"];

/// `arguments` go to the demo as they are.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch()?;
    guests::build(&GUESTS.map(str::to_owned))?;
    let dist = build::run(Processor::host()?, true)?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout());
    step::run(
        "the demo itself",
        cargo.args(["build", "--locked", "--package", "demo"]),
    )?;
    let status = Command::new(build::target_dir().join("debug/demo"))
        .args(arguments)
        .env("SAMPAN_SHIM_DIR", dist)
        .status()
        .context("start the demo")?;
    if !status.success() {
        bail!("the demo ended with {status}");
    }
    Ok(())
}
