//! `cargo xtask bench`: builds every contestant and measures them side by side (`test/bench`).
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tools::{Tools, cache_dir};

use crate::tools::{debian, install_by_rename};
use crate::{build, step};

/// `arguments` go to the bench as they are (`--quick`, `--sides floor,sampan`, `--n 200`, `--json FILE`).
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if Tools::locate().is_err() {
        crate::tools::run()?;
    }
    baseline(&cache_dir()?)?;
    // What is measured is what ships.
    let ours = build::run(build::Processor::host()?, true)?;
    measure("bench", |bench| {
        bench.args(arguments).arg("--shims").arg(ours)
    })
}

/// Builds a program of `test/bench` and runs it.
pub(crate) fn measure(
    program: &str,
    with: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<()> {
    step::run(
        "the bench and the floor (release)",
        Command::new("cargo").current_dir(build::checkout()).args([
            "build",
            "--release",
            "--locked",
            "--package",
            "bench",
        ]),
    )?;
    let target = build::target_dir();
    let mut command = Command::new(target.join("release").join(program));
    let status = with(command.env("CARGO_TARGET_DIR", &target))
        .status()
        .context("start the bench")?;
    if !status.success() {
        bail!("the bench ended with {status}");
    }
    Ok(())
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
    const PACKAGE: &str = "libseccomp-dev";
    let target = cache.join("tools").join(PACKAGE);
    if !target.exists() {
        // Whatever version the system offers: it is linked into the yardstick only.
        let packages = BTreeMap::from([(PACKAGE.to_owned(), String::new())]);
        install_by_rename(&target, |dir| debian::unpack(&packages, dir))?;
    }
    let lib = target.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    if !lib.join("libseccomp.a").exists() {
        bail!("find libseccomp.a in {}", lib.display());
    }
    Ok(lib)
}
