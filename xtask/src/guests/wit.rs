//! WASI's interface definitions. Other people's text is not kept in this tree: it comes with a pinned crate.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Place;
use crate::step;

/// The version that the pinned `wasip2` crate carries, and that our worlds are written for.
pub(super) const VERSION: &str = "0.2.12";

/// Puts `world`, and the definitions that it refers to, into `to`, all of them as `version`.
pub(super) fn directory(place: &Place, world: &Path, version: &str, to: &Path) -> Result<PathBuf> {
    let definitions = crate_directory(place)?.join("wit/deps");
    let deps = to.join("deps");
    fs::create_dir_all(&deps).with_context(|| format!("create {}", deps.display()))?;
    copy(world, &to.join("world.wit"), version)?;
    for entry in
        fs::read_dir(&definitions).with_context(|| format!("list {}", definitions.display()))?
    {
        let entry = entry?;
        copy(&entry.path(), &deps.join(entry.file_name()), version)?;
    }
    Ok(to.to_owned())
}

fn copy(from: &Path, to: &Path, version: &str) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    fs::write(to, text.replace(VERSION, version)).with_context(|| format!("write {}", to.display()))
}

/// Where cargo keeps the source of the guests' `wasip2`.
fn crate_directory(place: &Place) -> Result<PathBuf> {
    let answer = step::output(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&place.sources)
            .args(["metadata", "--format-version", "1", "--locked"]),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&answer).context("read the answer of cargo metadata")?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "wasip2")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(Path::to_owned)
        .context("find crate wasip2 among the guests' dependencies: test/guests/Cargo.toml has to name it")
}
