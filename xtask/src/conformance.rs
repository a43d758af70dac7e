//! `cargo xtask conformance`: critest with runc's handler and with ours (`test/conformance`).
use std::process::Command;

use anyhow::{Context, Result, bail};

use ::tools::Purpose;

use crate::build::{self, Processor, checkout};
use crate::{step, tools};

/// `arguments` go to critest as they are (`--ginkgo.focus=Streaming`).
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch_for(Purpose::Conformance)?;
    // As the suites do: others than what ships may be named.
    let shims = match std::env::var_os("SAMPAN_SHIM_DIR") {
        Some(named) => named.into(),
        None => build::run(Processor::host()?, true)?,
    };
    let mut cargo = Command::new("cargo");
    cargo.current_dir(checkout());
    step::run(
        "the conformance test itself",
        cargo.args(["build", "--locked", "--package", "conformance"]),
    )?;
    let status = Command::new(build::target_dir().join("debug/conformance"))
        .args(arguments)
        .env("SAMPAN_SHIM_DIR", shims)
        .status()
        .context("start the conformance test")?;
    if !status.success() {
        bail!("the conformance test ended with {status}");
    }
    Ok(())
}
