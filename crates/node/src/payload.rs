//! What is to be installed: the binaries that came with this program.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::files;
use crate::state::Versions;

/// The shim, which containerd executes.
pub const SHIM: &str = "containerd-shim-sampan-v1";
/// The shim under the name by which it serves all pods of a node: a link beside it, which is made where it is installed.
pub const DENSE: &str = "containerd-shim-sampan-dense-v1";
/// The runner, which the shim finds beside itself.
const RUNNER: &str = "sampan-runner";
/// What guests may be written for: the runner links all of it always.
const WASI: &str = "0.1,0.2,0.3";
/// How many digits of the hash name a directory.
const DIGITS: usize = 16;

/// The binaries with what is known of them.
#[derive(Clone, Debug)]
pub struct Payload {
    dir: PathBuf,
    /// The digest of each file.
    pub files: BTreeMap<String, String>,
    /// The hash of all of it: the name of the directory on the host.
    pub hash: String,
    /// What the binaries say of themselves.
    pub versions: Versions,
}

impl Payload {
    /// Reads the directory.
    ///
    /// # Errors
    /// When a file is missing, or does not run here.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut payload = Self::of(dir, &[SHIM, RUNNER])?;
        // Lines such as `Version:  v0.1.0` and `sampan-runner 0.1.0 (48.0.8-00c0ffee00c0ffee)`.
        let shim = said(&dir.join(SHIM), "-v")?;
        let runner = said(&dir.join(RUNNER), "--version")?;
        let shim = shim.split_whitespace().last().unwrap_or_default();
        let engine = runner
            .rsplit_once('(')
            .and_then(|(_, print)| print.rsplit_once('-'))
            .map(|(version, _)| version)
            .with_context(|| format!("find the engine's version in `{}`", runner.trim()))?;
        payload.versions = Versions {
            shim: shim.trim_start_matches('v').to_owned(),
            engine: engine.to_owned(),
            wasi: WASI.to_owned(),
        };
        Ok(payload)
    }

    /// Hashes these files of a directory.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn of(dir: &Path, names: &[&str]) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in names {
            let path = dir.join(name);
            let bytes = files::read(&path)?
                .with_context(|| format!("find {} of the payload", path.display()))?;
            files.insert((*name).to_owned(), files::digest(&bytes));
        }
        let mut all = Sha256::new();
        for (name, digest) in &files {
            all.update(format!("{digest}  {name}\n"));
        }
        Ok(Self {
            dir: dir.to_owned(),
            files,
            hash: hex::encode(all.finalize())[..DIGITS].to_owned(),
            versions: Versions::default(),
        })
    }

    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read, or has changed since it was hashed.
    pub fn content(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            self.files.get(name) == Some(&files::digest(&bytes)),
            "{} has changed since it was hashed",
            path.display()
        );
        Ok(bytes)
    }
}

/// Whether a directory's name is one that a hash gives.
#[must_use]
pub fn is_hash(name: &str) -> bool {
    name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn said(program: &Path, flag: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .output()
        .with_context(|| format!("execute {} {flag}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} {flag} ended with {}",
        program.display(),
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
        let hash = || Payload::of(dir.path(), &["a", "b"]).map(|payload| payload.hash);
        assert!(hash().is_err());
        write("a", "one").expect("write");
        write("b", "two").expect("write");
        let first = hash().expect("there");
        assert!(is_hash(&first) && !is_hash("current"));
        let payload = Payload::of(dir.path(), &["a", "b"]).expect("there");
        assert_eq!(payload.content("a").expect("there"), b"one");
        write("a", "two").expect("write");
        write("b", "one").expect("write");
        assert_ne!(hash().expect("there"), first);
        assert!(payload.content("a").is_err());
    }
}
