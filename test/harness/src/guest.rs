use anyhow::{Context, Result};

/// The bytes of a guest of `test/guests`, by its file name there, as in `probe.wasm`.
///
/// # Errors
/// When it was not built.
pub fn guest(name: &str) -> Result<Vec<u8>> {
    let path = tools::cache_dir()?.join("guests").join(name);
    std::fs::read(&path)
        .with_context(|| format!("read {}: run `cargo xtask guests`", path.display()))
}

/// Whether this machine can run tests with our shim; says on standard error why not, for a test that is to be skipped.
///
/// # Errors
/// When the shim was not built: that is no reason to skip.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
pub fn able() -> Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: containerd needs root");
        return Ok(false);
    }
    if let Err(error) = crate::Tools::locate() {
        eprintln!("skipped: {error}");
        return Ok(false);
    }
    let dir = crate::built_dir()?;
    for name in [crate::shim(), "sampan-runner"] {
        let path = dir.join(name);
        path.metadata().with_context(|| {
            format!(
                "find {}: run `cargo xtask build`, or set SAMPAN_SHIM_DIR",
                path.display()
            )
        })?;
    }
    Ok(true)
}
