//! Guests that are core modules: text, Rust, Go and C for WASI 0.1.
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tools::{Pins, cache_dir};

use super::{Place, python};
use crate::{step, tools::go};

/// `hello` stays text (its name would be Rust's otherwise): a guest may be a `.wat` file. All others become binary.
pub(super) const WAT: &[&str] = &[
    "hello.wat",
    "config.wasm",
    "div0.wasm",
    "exceptions.wasm",
    "exit-7.wasm",
    "exports.wasm",
    "future-interface.wasm",
    "gc.wasm",
    "huge-memory.wasm",
    "legacy-exceptions.wasm",
    "memory64.wasm",
    "no-run.wasm",
    "no-start.wasm",
    "on-term.wasm",
    "out-of-bounds.wasm",
    "relaxed-simd.wasm",
    "simd.wasm",
    "start-and-exports.wasm",
    "start-section.wasm",
    "start-with-parameters.wasm",
    "tail-call.wasm",
    "threads.wasm",
    "unknown-import.wasm",
    "unknown-interface.wasm",
    "unknown-p1-import.wasm",
    "wasi-unstable.wasm",
    "wrong-import-type.wasm",
];

pub(super) fn wat(place: &Place, out: &Path) -> Result<()> {
    step::say("guests in the text format");
    for guest in WAT {
        let text = place
            .sources
            .join("wat")
            .join(Path::new(guest).with_extension("wat"));
        let bytes = if guest.ends_with(".wat") {
            fs::read(&text).with_context(|| format!("read {}", text.display()))?
        } else {
            wat::parse_file(&text).with_context(|| format!("translate {}", text.display()))?
        };
        fs::write(out.join(guest), bytes).with_context(|| format!("write {guest}"))?;
    }
    Ok(())
}

pub(super) fn rust(place: &Place, out: &Path) -> Result<()> {
    cargo(place, "wasm32-wasip1", &["hello", "probe"])?;
    for guest in ["hello.wasm", "probe.wasm"] {
        take(place, "wasm32-wasip1", guest, &out.join(guest))?;
    }
    Ok(())
}

/// Builds packages of the guests' own workspace.
pub(super) fn cargo(place: &Place, target: &str, packages: &[&str]) -> Result<()> {
    add_target(target)?;
    let mut command = Command::new("nice");
    command
        .arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&place.sources)
        .args(["build", "--release", "--locked", "--target", target])
        .arg("--target-dir")
        .arg(place.target())
        // Flags that somebody set for the host are not meant for these targets.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    for package in packages {
        command.args(["--package", package]);
    }
    step::run(&format!("Rust guests for {target}"), &mut command)
}

/// Copies what cargo built.
pub(super) fn take(place: &Place, target: &str, file: &str, to: &Path) -> Result<()> {
    let built = place.target().join(target).join("release").join(file);
    fs::copy(&built, to)
        .with_context(|| format!("copy {} to {}", built.display(), to.display()))?;
    Ok(())
}

/// Asks rustup for the target's standard library where it is missing.
fn add_target(target: &str) -> Result<()> {
    let root = step::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if Path::new(root.trim())
        .join("lib/rustlib")
        .join(target)
        .is_dir()
    {
        return Ok(());
    }
    step::run(
        &format!("standard library for {target}"),
        Command::new("rustup").args(["target", "add", target]),
    )
    .with_context(|| {
        format!("install Rust's {target}: without rustup, install it with the toolchain")
    })
}

pub(super) fn go(place: &Place, out: &Path) -> Result<()> {
    let home = cache_dir()?.join("tools");
    let go = go::find(&Pins::of_this_checkout(), &home)?;
    for guest in ["hello-go", "big"] {
        let mut command = Command::new("nice");
        command
            .arg(&go.command)
            .current_dir(place.sources.join(guest))
            .env("GOOS", "wasip1")
            .env("GOARCH", "wasm")
            .env("CGO_ENABLED", "0")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .args([
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags=-s -w",
                "-o",
            ])
            .arg(out.join(format!("{guest}.wasm")))
            .arg(".");
        step::run(
            &format!("{guest} (Go; half a minute the first time)"),
            &mut command,
        )?;
    }
    Ok(())
}

pub(super) fn c(place: &Place, out: &Path) -> Result<()> {
    let packages = python::packages(place)?;
    let mut command = packages.command("ziglang");
    command
        .env("ZIG_GLOBAL_CACHE_DIR", place.toolchains().join("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", place.toolchains().join("zig"))
        .args([
            "cc",
            "-target",
            "wasm32-wasi",
            "-Os",
            "-s",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
        ])
        .arg(out.join("hello-c.wasm"))
        .arg(place.sources.join("hello-c/hello.c"));
    step::run("hello-c (C; half a minute the first time)", &mut command)
}
