//! `cargo xtask bench`: builds every contestant and measures them side by side (`test/bench`). `cargo xtask counts`: what
//! of the same does not depend on the machine's mood.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tools::{Tools, cache_dir};

use crate::test::Programs;
use crate::tools::{debian, install_by_rename};
use crate::{build, guests, step};

/// The guests that the bench runs beside its own.
const GUESTS: [&str; 6] = [
    "hello-c", "hello-go", "big", "hello-py", "http-js", "http-py",
];

/// `arguments` go to the bench as they are (`--quick`, `--sides floor,sampan`, `--n 200`, `--json FILE`); with `base` the
/// shim and the runner of that revision are measured too.
pub(crate) fn run(base: Option<&str>, arguments: &[String]) -> Result<()> {
    if arguments
        .iter()
        .any(|argument| argument.starts_with("--cluster"))
    {
        // What it measures is there already.
        return measure("bench", |bench| bench.args(arguments));
    }
    if Tools::locate().is_err() {
        crate::tools::run()?;
    }
    let cache = cache_dir()?;
    baseline(&cache)?;
    if let Err(error) = guests::build(&GUESTS.map(str::to_owned)) {
        // Those that are not there are not measured, and the bench says so.
        eprintln!("error: {error:#}");
    }
    // What is measured is what ships.
    let ours = build::run(build::Processor::host()?, true)?;
    let base = base
        .map(|revision| of_revision(&cache, revision))
        .transpose()?;
    measure("bench", |bench| {
        bench.arg("--shims").arg(ours);
        if let Some(base) = base {
            bench.arg("--base").arg(base);
        }
        bench.args(arguments)
    })
}

/// Builds a program of `test/bench` and runs it.
pub(crate) fn measure(name: &str, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(build::checkout()).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "bench",
    ]);
    step::run("the bench and the floor", &mut cargo)?;
    start(with(&mut program(name, "release")))
}

/// Prints instructions and sizes, and fails where they are beyond [`build::BOUNDS`]. `shipped` is the directory of the
/// binaries.
pub(crate) fn counts(shipped: &Path) -> Result<()> {
    // Its own test has them compiled.
    Programs::compile(None)?;
    start(
        program("bench", "debug")
            .arg("--shims")
            .arg(shipped)
            .arg("--counts")
            .arg(build::checkout().join(build::BOUNDS)),
    )
}

/// A program of it as it was compiled.
fn program(name: &str, profile: &str) -> Command {
    let target = build::target_dir();
    let mut program = Command::new(target.join(profile).join(name));
    program.env("CARGO_TARGET_DIR", target);
    program
}

fn start(program: &mut Command) -> Result<()> {
    let status = program.status().context("start the bench")?;
    if !status.success() {
        bail!("the bench ended with {status}");
    }
    Ok(())
}

/// Shim and runner of another revision, built as that revision builds what ships, in a work tree and a target directory of
/// their own. Returns the directory in the cache where they stay.
fn of_revision(cache: &Path, revision: &str) -> Result<PathBuf> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(build::checkout()).args(arguments);
        git
    };
    let commit = step::output(&mut git(&[
        "rev-parse",
        "--verify",
        "--end-of-options",
        &format!("{revision}^{{commit}}"),
    ]))?;
    let commit = commit.trim();
    let home = cache.join("bench-base");
    let kept = home.join(commit);
    if kept.exists() {
        return Ok(kept);
    }
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let tree = tempfile::Builder::new()
        .prefix("tree-")
        .tempdir_in(&home)
        .context("make a directory for the work tree")?;
    let path = tree.path().to_string_lossy();
    step::output(&mut git(&["worktree", "add", "--detach", &path, commit]))?;
    let built = step::run(
        &format!("what ships of {revision} (some minutes)"),
        Command::new("cargo")
            .current_dir(tree.path())
            .args(["xtask", "build"])
            .env("CARGO_TARGET_DIR", home.join("target")),
    );
    let removed = step::output(&mut git(&["worktree", "remove", "--force", &path]));
    built?;
    removed?;
    let dist = home
        .join("target/dist")
        .join(build::Processor::host()?.triple());
    install_by_rename(&kept, |to| {
        for name in build::RUNTIME {
            fs::copy(dist.join(name), to.join(name))
                .with_context(|| format!("keep {name} of {revision}"))?;
        }
        // Revisions before there was a second name have none.
        if dist.join(build::DENSE).exists() {
            build::link(to)?;
        }
        Ok(())
    })?;
    Ok(kept)
}

/// The directory of the baseline's shim, which is built if need be.
pub(crate) fn baseline_dir(cache: &Path) -> Result<PathBuf> {
    baseline(cache)?;
    Ok(cache.join("baseline-target/release"))
}

/// The baseline has a workspace, a lock file and a target directory of its own: it pins versions that cannot be linked
/// beside ours.
fn baseline(cache: &Path) -> Result<()> {
    let libseccomp = libseccomp(cache)?;
    step::run(
        "the baseline shim (release; ten minutes the first time)",
        Command::new("cargo")
            .current_dir(build::checkout().join("test/baseline"))
            .args(["build", "--release", "--locked"])
            .env("CARGO_TARGET_DIR", cache.join("baseline-target"))
            .env("LIBSECCOMP_LIB_PATH", libseccomp)
            .env("LIBSECCOMP_LINK_TYPE", "static"),
    )
}

/// libcontainer, as containerd-shim-wasm asks for it, links libseccomp. Returns the directory of the static library.
fn libseccomp(cache: &Path) -> Result<PathBuf> {
    // Whatever version the system offers: it is linked into the yardstick only.
    let target = debian::any("libseccomp-dev", &cache.join("tools"))?;
    let lib = target.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    if !lib.join("libseccomp.a").exists() {
        bail!("find libseccomp.a in {}", lib.display());
    }
    Ok(lib)
}
