//! `cargo xtask demo`: brings together what `test/demo` shows, and runs it.
use anyhow::Result;

use crate::build::{self, Processor};
use crate::{guests, step, tools};

/// The guests that the demo shows.
const GUESTS: [&str; 3] = ["hello", "http-p2", "probe"];

/// `arguments` go to the demo as they are.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    tools::fetch()?;
    guests::build(&GUESTS.map(str::to_owned))?;
    let shims = build::run(Processor::host()?, true)?;
    step::show("demo", "demo", &shims, arguments)
}
