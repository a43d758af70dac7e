//! Programs that come as Python packages, in a directory of their own: the host's Python stays as it is.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{
    step,
    tools::{debian, install_by_rename},
};

/// A directory of installed packages.
pub(crate) struct Packages {
    directory: PathBuf,
}

impl Packages {
    /// `python3 -m MODULE`, at low priority.
    pub(crate) fn command(&self, module: &str) -> Command {
        let mut command = self.python();
        command.args(["-m", module]);
        command
    }

    /// A function of a module, as its console script would call it, at low priority.
    pub(crate) fn script(&self, module: &str, function: &str) -> Command {
        let mut command = self.python();
        command.args(["-c", &format!("import {module}; {module}.{function}()")]);
        command
    }

    /// A file of a package.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    fn python(&self) -> Command {
        let mut command = Command::new("nice");
        command
            .arg("python3")
            .env("PYTHONPATH", &self.directory)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("VIRTUAL_ENV");
        command
    }
}

/// What `requirements` lists, installed below `toolchains` if it is not there yet. The directory's name changes with the
/// list. `what` says how much it is.
pub(crate) fn install(toolchains: &Path, requirements: &str, what: &str) -> Result<Packages> {
    let version = hex::encode(Sha256::digest(requirements));
    fs::create_dir_all(toolchains).with_context(|| format!("create {}", toolchains.display()))?;
    let directory = toolchains.join(format!("python-{}", &version[..12]));
    if !directory.exists() {
        let mut pip = pip(toolchains)?;
        pip.args([
            "install",
            "--no-compile",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--quiet",
        ]);
        pip.args(packages(requirements));
        install_by_rename(&directory, |temporary| {
            step::run(what, pip.arg("--target").arg(temporary))
        })?;
    }
    Ok(Packages { directory })
}

/// `NAME==VERSION`, one a line, between comments.
fn packages(requirements: &str) -> impl Iterator<Item = &str> {
    requirements
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The host's pip, or Debian's, unpacked.
fn pip(toolchains: &Path) -> Result<Command> {
    step::output(Command::new("python3").arg("--version"))
        .context("find python3: install it (`apt-get install python3`)")?;
    let mut command = Command::new("python3");
    if step::output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok() {
        command.args(["-m", "pip"]);
        return Ok(command);
    }
    // python3 alone has no pip.
    let home = debian::any("python3-pip-whl", toolchains)?;
    let wheels = home.join("usr/share/python-wheels");
    let wheel = fs::read_dir(&wheels)
        .with_context(|| format!("list {}", wheels.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("pip-"))
        })
        .context("find pip in Debian's package python3-pip-whl")?;
    // A wheel is an archive with a package in it, which Python runs as it is.
    command.arg(wheel.join("pip"));
    Ok(command)
}
