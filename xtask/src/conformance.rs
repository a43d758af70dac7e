//! `cargo xtask conformance`: critest with runc's handler and with ours (`test/conformance`).
use ::tools::Purpose;
use anyhow::Result;

use crate::{build, step, tools};

/// `arguments` go to critest as they are (`--ginkgo.focus=Streaming`).
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch_for(Purpose::Conformance)?;
    step::show("conformance", "conformance", &build::tried()?, arguments)
}
