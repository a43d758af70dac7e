//! `cargo xtask fuzz`: wrong input for the command line tool, for as long as is told (`crates/sampan/tests/wrong_input`).
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::build::{checkout, target_dir};
use crate::{guests, step};

/// Without a seed chance begins where it has not yet.
pub(crate) fn run(time: Duration, seed: Option<u64>) -> Result<()> {
    // What it changes; the tests have its few others themselves.
    guests::build(&[])?;
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .context("read the clock")?
            .as_secs(),
    };
    let found = target_dir().join("fuzz");
    step::run(
        &format!(
            "{} seconds from seed {seed}; what is found goes to {}",
            time.as_secs(),
            found.display()
        ),
        Command::new("cargo")
            .current_dir(checkout())
            .args(["test", "--locked", "--package", "sampan"])
            .args(["--test", "wrong_input", "--", "--nocapture"])
            .env("SAMPAN_FUZZ_SECONDS", time.as_secs().to_string())
            .env("SAMPAN_FUZZ_SEED", seed.to_string())
            .env("SAMPAN_FUZZ_FOUND", found),
    )
}
