//! `make conformance`: critest, the test that a runtime of Kubernetes is held to, runs on one containerd with runc's
//! handler and on another with ours, and the two are compared, test by test.
//!
//! It fails when a test that passes with runc does not pass with ours, unless `docs/conformance.md` says why it does not
//! apply.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a report: its output is its purpose"
)]

mod exempt;
mod images;
mod report;
mod run;

use anyhow::{Context, Result, bail};
use harness::Registry;

#[tokio::main]
async fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("run the conformance test as root: containerd makes namespaces and mounts");
    }
    // For critest itself, as in `--ginkgo.focus=Streaming`.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let exemptions = exempt::from_the_document()?;

    let registry = Registry::start()?;
    images::push(&registry).await?;
    let runc = run::critest(&registry, "runc", &arguments)
        .await
        .context("critest with runc's handler")?;
    let sampan = run::critest(&registry, "sampan", &arguments)
        .await
        .context("critest with ours")?;

    let comparison = report::compare(&runc, &sampan, &exemptions);
    print!("{comparison}");
    if comparison.holds() {
        Ok(())
    } else {
        bail!("some tests pass with runc's handler and not with ours: see above");
    }
}
