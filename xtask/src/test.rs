//! `cargo xtask test`: everything that must hold, in the order in which a mistake shows soonest.
//!
//! A step that fails does not keep the others from running, but for what needs its result; the closing lines name what
//! failed. The last line counts the tests of all runs as cargo does.
mod programs;
mod tally;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub(crate) use self::programs::Programs;
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
    let mut programs = None;
    report.step("unit tests", || {
        let mut failed = Vec::new();
        let programs = programs.insert(Programs::compile(None)?);
        for package in packages.iter().filter(|package| !package.suite) {
            // Those that are ignored need guests, which are there by now.
            let ran = programs.run(package, None, &mut tally, &["--include-ignored"], |_| ());
            failed.extend(ran.err().map(|error| error.to_string()));
        }
        let mut examples = cargo();
        examples.args(["test", "--locked", "--workspace", "--doc", "--"]);
        let ran = tally.run("examples in documentation", &mut examples, &[]);
        failed.extend(ran.err().map(|error| error.to_string()));
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
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
            let programs = match &programs {
                Some(programs) => programs,
                None => programs.insert(Programs::compile(None)?),
            };
            // What is ignored here is a known defect, and counts as ignored.
            programs.run(suite.package, suite.dense, &mut tally, &[], |command| {
                command.env("SAMPAN_SHIM_DIR", shipped);
                if suite.dense.is_some() {
                    command.env(SCOPE, "dense");
                }
            })
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
    package: &'a Package,
    /// These alone, once more, with one supervisor for all.
    dense: Option<&'static [&'static str]>,
}

impl Suite<'_> {
    fn name(&self) -> String {
        let scope = if self.dense.is_some() { " dense" } else { "" };
        format!("suite {}{scope}", self.package.name)
    }
}

/// Each suite, and some of their tests in the other scope, unless a scope is chosen for all.
fn suites(packages: &[Package]) -> Vec<Suite<'_>> {
    let chosen = std::env::var_os(SCOPE).is_some();
    let suites = packages
        .iter()
        .filter(|package| package.suite && package.name != E2E);
    let once = suites.clone().map(|package| Suite {
        package,
        dense: None,
    });
    let twice = suites.filter(|_| !chosen).filter_map(|package| {
        let (_, tests) = DENSE.iter().find(|(name, _)| *name == package.name)?;
        Some(Suite {
            package,
            dense: Some(tests),
        })
    });
    once.chain(twice).collect()
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

pub(crate) struct Package {
    pub(crate) name: String,
    /// Where it is.
    directory: PathBuf,
    /// Holds tests of the whole, which want the shipped binaries, guests and root.
    suite: bool,
}

/// The packages of the workspace. A suite is called `...-tests`; one that comes later is found without a change here.
pub(crate) fn packages() -> Result<Vec<Package>> {
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
                directory: Path::new(package["manifest_path"].as_str()?)
                    .parent()?
                    .to_owned(),
                name,
            })
        })
        .collect())
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(checkout());
    // Set for this program by the cargo that runs it: build scripts that ask for it (ring's) would be run again for each
    // checkout, and all that needs them compiled again.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}
