//! `cargo xtask many`: how many pods this machine carries (`test/bench/src/bin/many.rs`).
use anyhow::Result;

use crate::{build, guests, step, tools};

/// `arguments` go to the program as they are (`--pods 1000`, `--handler sampan-dense`).
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch()?;
    guests::build(&["probe".to_owned()])?;
    step::show("bench", "many", &build::tried()?, arguments)
}
