//! Building the guest from `programs/hello.rs`, with the toolchain that built the bench.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const SOURCE: &str = include_str!("../programs/hello.rs");

/// The guest in the two forms that the contestants run.
pub(crate) struct Programs {
    /// Static, for the host's architecture.
    pub(crate) native: Vec<u8>,
    /// A WASI 0.1 module.
    pub(crate) wasm: Vec<u8>,
}

impl Programs {
    /// Compiles into `directory`. `native_target` is a static (musl) target of the host.
    pub(crate) fn build(directory: &Path) -> Result<Self> {
        let source = directory.join("hello.rs");
        std::fs::write(&source, SOURCE).with_context(|| format!("write {source:?}"))?;
        let native_target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        Ok(Self {
            native: compile(&source, &native_target, directory.join("hello"))?,
            wasm: compile(&source, "wasm32-wasip1", directory.join("hello.wasm"))?,
        })
    }
}

fn compile(source: &Path, target: &str, output: PathBuf) -> Result<Vec<u8>> {
    let built = Command::new("rustc")
        .args(["--edition=2024", "--crate-name=hello", "-O"])
        .args(["-C", "panic=abort", "-C", "strip=symbols", "-C", "lto=fat"])
        .args(["--target", target, "-o"])
        .args([&output, source])
        .output()
        .context("start rustc")?;
    ensure!(
        built.status.success(),
        "compile the guest for {target} (is the target installed? rustup target add {target}): {}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(&output).with_context(|| format!("read {output:?}"))
}
