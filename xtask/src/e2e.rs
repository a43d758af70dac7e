//! `cargo xtask e2e`: the suite in a Kubernetes cluster (`test/e2e`).
use std::ffi::OsString;
use std::time::Instant;

use ::tools::Purpose;
use anyhow::{Context, Result};

use crate::build::{self, Processor};
use crate::test::{E2E, Programs, Tally, packages};
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
    let mut environment: Vec<(&str, OsString)> = Vec::new();
    // A cluster that is there already has its own kubelet and its own Sampan.
    let theirs = std::env::var_os("KUBECONFIG").is_some();
    if !theirs {
        tools::fetch_for(Purpose::E2e)?;
        // A path is taken as it is.
        if std::env::var_os("SAMPAN_KUBELET").is_some_and(|named| named == "older") {
            environment.push(("SAMPAN_KUBELET", tools::program("kubelet")?.into()));
        }
        let binaries = build::tried()?;
        // Without the node program the tests that install it are skipped, and say so.
        if binaries.join(build::NODE).exists() {
            let archive = image::pack(Processor::host()?, &binaries, image::REFERENCE)?;
            environment.push(("SAMPAN_NODE_IMAGE", archive.into()));
        }
        environment.push(("SAMPAN_SHIM_DIR", binaries.into()));
    }
    let packages = packages()?;
    let suite = packages.iter().find(|package| package.name == E2E);
    let suite = suite.with_context(|| format!("find the package {E2E}"))?;
    let programs = Programs::compile(theirs.then_some(suite))?;
    let mut tally = Tally::default();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = programs.run(suite, None, &mut tally, &arguments, |command| {
        command.envs(environment.iter().map(|(name, value)| (name, value)));
    });
    println!("{}", tally.line(outcome.is_ok(), began.elapsed()));
    outcome
}
