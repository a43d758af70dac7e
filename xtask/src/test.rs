//! `cargo xtask test`: everything that must hold, in the order in which a mistake shows soonest.
//!
//! A step that fails does not keep the others from running, but for what needs its result; the closing lines name what
//! failed. The last line counts the tests of all runs as cargo does.
mod tally;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub(crate) use self::tally::Tally;
use crate::build::{self, Processor, checkout};
use crate::{bench, chart, check, guests, step, tools, workflows};

/// Runs all steps, or those whose name contains one of `only`.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let began = Instant::now();
    let mut report = Report {
        only,
        failed: Vec::new(),
        notes: Vec::new(),
    };
    let mut tally = Tally::default();

    report.step("tools", || tools::fetch().map(drop));
    report.step("format", || {
        step::run("format", cargo().args(["fmt", "--all", "--check"]))
    });
    report.step("clippy", || {
        step::run(
            "clippy",
            cargo()
                .args(["clippy", "--locked", "--workspace", "--all-targets"])
                .args(["--", "--deny", "warnings"]),
        )
    });
    let mut unknown = None;
    report.step("engine", || {
        if let check::Engine::Unknown(why) = check::engine()? {
            unknown = Some(why);
        }
        Ok(())
    });
    if let Some(why) = unknown {
        report.notes.push(format!("engine: skipped: {why}"));
    }
    report.step("chart", chart::try_out);
    report.step("workflows", workflows::lint);
    report.step("guests", || guests::build(&[]).map(drop));
    let packages = packages()?;
    report.step("unit tests", || {
        let mut command = cargo();
        command.args(["test", "--locked", "--no-fail-fast", "--workspace"]);
        for suite in packages.iter().filter(|package| package.suite) {
            command.args(["--exclude", &suite.name]);
        }
        // Those that are ignored need guests, which are there by now.
        tally.run("unit tests", &mut command, &["--include-ignored"])
    });
    let mut shipped = None;
    report.step("build", || {
        shipped = Some(build::run(Processor::host()?, true)?);
        Ok(())
    });
    if let Some(shipped) = &shipped {
        report.step("counts", || bench::counts(shipped));
    }
    for suite in suites(&packages) {
        let name = suite.name();
        if report.leaves_out(&name) {
            continue;
        }
        let Some(shipped) = &shipped else {
            report
                .notes
                .push(format!("{name}: not run: there are no binaries to test"));
            continue;
        };
        report.step(&name, || {
            let mut command = cargo();
            command
                .args(["test", "--locked", "--no-fail-fast"])
                .args(["--package", suite.package])
                .env("SAMPAN_SHIM_DIR", shipped);
            match suite.dense {
                // A suite has no examples in its documentation, which would each be compiled.
                None => command.arg("--tests"),
                Some(tests) => command
                    .args(tests.iter().flat_map(|test| ["--test", test]))
                    .env(SCOPE, "dense"),
            };
            // What is ignored here is a known defect, and counts as ignored.
            tally.run(&name, &mut command, &[])
        });
    }

    eprintln!();
    for note in &report.notes {
        eprintln!("note: {note}");
    }
    for failure in &report.failed {
        eprintln!("failed: {failure}");
    }
    println!("{}", tally.line(report.failed.is_empty(), began.elapsed()));
    if !report.failed.is_empty() {
        bail!("{} of the steps failed: see above", report.failed.len());
    }
    Ok(())
}

/// The suite that wants a cluster: `cargo xtask e2e` runs it.
pub(crate) const E2E: &str = "e2e-tests";

/// `dense` makes the suites those of the runtime with one supervisor for a node (`test/harness/src/scope.rs`).
const SCOPE: &str = "SAMPAN_SCOPE";

/// The tests whose outcome may depend on whom a supervisor serves.
const DENSE: [(&str, &[&str]); 2] = [
    (
        "shim-tests",
        &["exec", "failure", "life", "lifecycle", "native", "stop"],
    ),
    ("cri-tests", &["failure", "pod", "restart", "stop"]),
];

/// A run of the tests of a package.
struct Suite<'a> {
    package: &'a str,
    /// These alone, once more, with one supervisor for all.
    dense: Option<&'static [&'static str]>,
}

impl Suite<'_> {
    fn name(&self) -> String {
        let scope = if self.dense.is_some() { " dense" } else { "" };
        format!("suite {}{scope}", self.package)
    }
}

/// Each suite, and some of their tests in the other scope, unless a scope is chosen for all.
fn suites(packages: &[Package]) -> Vec<Suite<'_>> {
    let chosen = std::env::var_os(SCOPE).is_some();
    let twice = DENSE.iter().filter(|_| !chosen);
    packages
        .iter()
        .filter(|package| package.suite && package.name != E2E)
        .map(|package| Suite {
            package: &package.name,
            dense: None,
        })
        .chain(twice.map(|(package, tests)| Suite {
            package,
            dense: Some(tests),
        }))
        .collect()
}

struct Report<'a> {
    only: &'a [String],
    failed: Vec<String>,
    notes: Vec<String>,
}

impl Report<'_> {
    fn leaves_out(&self, name: &str) -> bool {
        !self.only.is_empty()
            && !self
                .only
                .iter()
                .any(|wanted| name.contains(wanted.as_str()))
    }

    /// Runs a step and says how long it took; a failure is kept for the end.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        if self.leaves_out(name) {
            return;
        }
        eprintln!("\n=== {name}");
        let began = Instant::now();
        let result = work();
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => eprintln!("=== {name}: ok, {seconds:.1} s"),
            Err(error) => {
                eprintln!("=== {name}: FAILED, {seconds:.1} s: {error:#}");
                self.failed.push(format!("{name}: {error:#}"));
            }
        }
    }
}

struct Package {
    name: String,
    /// Holds tests of the whole, which want the shipped binaries, guests and root.
    suite: bool,
}

/// The packages of the workspace. A suite is called `...-tests`; one that comes later is found without a change here.
fn packages() -> Result<Vec<Package>> {
    let metadata =
        step::output(cargo().args(["metadata", "--locked", "--no-deps", "--format-version=1"]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("read what `cargo metadata` says")?;
    let packages = metadata["packages"]
        .as_array()
        .context("`cargo metadata` lists no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let name = package["name"].as_str()?.to_owned();
            Some(Package {
                suite: name.ends_with("-tests"),
                name,
            })
        })
        .collect())
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(checkout());
    command
}
