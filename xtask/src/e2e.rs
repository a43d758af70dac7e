//! `cargo xtask e2e`: the suite in a Kubernetes cluster (`test/e2e`).
use std::process::Command;
use std::time::Instant;

use ::tools::Purpose;
use anyhow::{Result, bail};

use crate::build::{self, Processor, checkout};
use crate::test::{E2E, Tally};
use crate::{guests, image, tools};

/// The guests that the suite runs.
const GUESTS: [&str; 6] = [
    "hello",
    "hello-p2",
    "http-p2",
    "probe",
    "on-term",
    "unknown-import",
];

/// `arguments` go to the tests as they are: a part of a name, `--list`, `--test-threads 1`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let began = Instant::now();
    guests::build(&GUESTS.map(str::to_owned))?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(checkout())
        .args(["test", "--locked", "--no-fail-fast", "--package", E2E]);
    // A cluster that is there already has its own kubelet and its own Sampan.
    if std::env::var_os("KUBECONFIG").is_none() {
        tools::fetch_for(Purpose::E2e)?;
        // A path is taken as it is.
        if std::env::var_os("SAMPAN_KUBELET").is_some_and(|named| named == "older") {
            cargo.env("SAMPAN_KUBELET", tools::program("kubelet")?);
        }
        let binaries = build::tried()?;
        // Without the node program the tests that install it are skipped, and say so.
        if binaries.join(build::NODE).exists() {
            let archive = image::pack(Processor::host()?, &binaries, image::REFERENCE)?;
            cargo.env("SAMPAN_NODE_IMAGE", archive);
        }
        cargo.env("SAMPAN_SHIM_DIR", binaries);
    }
    let mut tally = Tally::default();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = tally.run("the end-to-end suite", &mut cargo, &arguments);
    println!("{}", tally.line(outcome.is_ok(), began.elapsed()));
    if let Err(error) = outcome {
        bail!("{error:#}");
    }
    Ok(())
}
