//! `cargo xtask check engine`: is our wasmtime the newest patch of its line, and which advisories cover it?
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tools::cache_dir;

use crate::build::checkout;
use crate::step;

/// The crates that are pinned together.
const CRATES: &[&str] = &["wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"];

/// The version of wasmtime that is locked.
///
/// # Errors
/// When the lock file does not say.
pub(crate) fn wasmtime() -> Result<String> {
    Ok(locked(&checkout().join("Cargo.lock"))?[0].to_string())
}

/// What the check found, when it found nothing to fail for.
pub(crate) enum Engine {
    /// Ours is the newest that the registry has.
    Newest,
    /// The registry did not answer: nothing is known.
    Unknown(String),
}

/// Compares the lock file with the registry, and prints the advisories of `docs/security.md` that cover what is locked.
///
/// # Errors
/// When the registry has a newer patch of the same line, or the crates are locked at different versions.
pub(crate) fn engine() -> Result<Engine> {
    let ours = locked(&checkout().join("Cargo.lock"))?;
    let version = ours[0];
    ensure!(
        ours.iter().all(|other| *other == version),
        "{} are locked at different versions: {ours:?}",
        CRATES.join(", ")
    );
    let document = include_str!("../../docs/security.md");
    for advisory in covering(document, version) {
        eprintln!("    covers {version}: {advisory}");
    }
    match newest(version) {
        Ok(newest) if newest > version => {
            bail!(
                "wasmtime {version} is locked, but the registry has {newest}: raise the pins in Cargo.toml"
            )
        }
        Ok(_) => {
            eprintln!("    wasmtime {version} is the newest patch that the registry has");
            Ok(Engine::Newest)
        }
        Err(error) => Ok(Engine::Unknown(format!("{error:#}"))),
    }
}

/// A release of a line: 48.0.8 is the eighth patch of 48.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.').map(|number| number.parse().ok());
        let version = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The versions of the engine's crates in a lock file.
fn locked(path: &Path) -> Result<Vec<Version>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    CRATES
        .iter()
        .map(|name| {
            version_in(&text, name).with_context(|| format!("find {name} in {}", path.display()))
        })
        .collect()
}

fn version_in(lock: &str, name: &str) -> Option<Version> {
    let mut lines = lock
        .lines()
        .skip_while(|line| *line != format!("name = \"{name}\""));
    let version = lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')?;
    Version::parse(version)
}

/// The newest patch of the line that the registry offers. Cargo asks it, with whatever configuration this machine has.
fn newest(version: Version) -> Result<Version> {
    let directory = cache_dir()?.join("check-engine");
    fs::create_dir_all(directory.join("src"))
        .with_context(|| format!("create {}", directory.display()))?;
    let mut manifest = String::from(
        "[workspace]\nresolver = \"2\"\n[package]\nname = \"newest\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[dependencies]\n",
    );
    for name in CRATES {
        manifest += &format!(
            "{name} = {{ version = \"~{}.{}\", default-features = false }}\n",
            version.0, version.1
        );
    }
    fs::write(directory.join("Cargo.toml"), manifest)
        .context("write the manifest of the question")?;
    fs::write(directory.join("src/lib.rs"), "").context("write the source of the question")?;
    let lock = directory.join("Cargo.lock");
    if lock.exists() {
        fs::remove_file(&lock).context("remove the last answer")?;
    }
    step::output(
        Command::new("cargo")
            .current_dir(&directory)
            .arg("generate-lockfile"),
    )
    .context("ask the registry for the newest wasmtime")?;
    let found = locked(&lock)?;
    found
        .into_iter()
        .min()
        .context("the registry names no version")
}

/// The rows of the document's table whose last column, the patch that fixed it, is newer than `version`. Other lines, and
/// fixes of unknown version, do not count.
fn covering(document: &str, version: Version) -> Vec<String> {
    document
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix('|')?
                .strip_suffix('|')?
                .split('|')
                .map(str::trim)
                .collect();
            let [advisory, what, fixed] = cells[..] else {
                return None;
            };
            (Version::parse(fixed)? > version)
                .then(|| format!("{advisory}: {what} (fixed in {fixed})"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advisories_cover_what_is_older_than_their_fix() {
        let table = "| advisory | what | fixed in |\n|---|---|---|\n| A | one | 48.0.6 |\n| B | two | 48.0.9 |\n";
        let at = |patch| covering(table, Version(48, 0, patch)).len();
        assert_eq!((at(5), at(8), at(9)), (2, 1, 0));
        assert_eq!(
            covering(table, Version(48, 0, 8)),
            ["B: two (fixed in 48.0.9)"]
        );
    }

    #[test]
    fn the_lock_file_names_one_version_of_the_engine() {
        let versions = locked(&checkout().join("Cargo.lock")).expect("all are locked");
        assert_eq!(versions.len(), CRATES.len());
    }
}
