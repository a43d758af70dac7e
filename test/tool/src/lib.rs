//! The tool as a process: this test's own binary under another name, so that nothing else has to be built.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

/// The name under which a test's binary is the tool.
const NAME: &str = "sampan";

/// Runs the tool if this process was started as [`Tool::command`] does. Before everything else in `main`.
#[must_use]
pub fn as_tool() -> Option<ExitCode> {
    let own = std::env::args_os().next()?;
    (Path::new(&own).file_name()? == NAME).then(sampan::main)
}

/// The tool, with a cache of its own.
#[derive(Debug)]
pub struct Tool {
    dir: TempDir,
    binary: PathBuf,
}

impl Tool {
    /// # Errors
    /// When its directory cannot be made.
    pub fn new() -> Result<Self> {
        let dir = TempDir::new().context("make a directory")?;
        // Beside the cache, which has the same name.
        let place = dir.path().join("bin");
        std::fs::create_dir(&place).context("make a directory")?;
        let binary = place.join(NAME);
        let own = std::env::current_exe().context("find this binary")?;
        std::os::unix::fs::symlink(own, &binary).context("link this binary")?;
        Ok(Self { dir, binary })
    }

    /// A directory for what a test needs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command line.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env_clear()
            .env("XDG_CACHE_HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)
            .output()
            .with_context(|| format!("run sampan {arguments:?}"))
    }

    /// The answer in JSON, and the exit code.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn json(&self, arguments: &[&str]) -> Result<(Value, Option<i32>)> {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let output = self.run(&all)?;
        let value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "read the answer to {arguments:?}; standard error: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok((value, output.status.code()))
    }
}

/// Whether no run has left its directories.
///
/// # Errors
/// When they cannot be listed.
pub fn left_behind(tool: &Tool) -> Result<Vec<PathBuf>> {
    let place = tool.dir().join("sampan/cli/run");
    if !place.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&place).with_context(|| format!("list {}", place.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
