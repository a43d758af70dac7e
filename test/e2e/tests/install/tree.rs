//! What lies in the directories that an installation may touch.
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every file with its kind, mode, owner and content.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    /// Reads these places; one that is not there is part of it too.
    pub(crate) fn read(places: &[PathBuf]) -> Result<Self> {
        let mut files = BTreeMap::new();
        for place in places {
            walk(place, &mut files).with_context(|| format!("read {}", place.display()))?;
        }
        Ok(Self(files))
    }

    /// What is in one of the two and not, or otherwise, in the other.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let paths = self.0.keys().chain(other.0.keys());
        let mut found: Vec<String> = paths
            .filter(|path| self.0.get(*path) != other.0.get(*path))
            .map(|path| {
                let shown = |tree: &Self| {
                    tree.0
                        .get(path)
                        .map(|it| it.lines().next().unwrap_or("").to_owned())
                };
                format!(
                    "{}: {:?}, then {:?}",
                    path.display(),
                    shown(self),
                    shown(other)
                )
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

fn walk(path: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let Ok(facts) = path.symlink_metadata() else {
        files.insert(path.to_owned(), "nothing".to_owned());
        return Ok(());
    };
    let mut text = format!("{:o} {}:{}", facts.mode(), facts.uid(), facts.gid());
    if facts.is_symlink() {
        text += &format!(" to {}", fs::read_link(path)?.display());
    } else if facts.is_file() {
        text += &format!(" of {} bytes\n", facts.len());
        text += &String::from_utf8_lossy(&fs::read(path)?);
    }
    files.insert(path.to_owned(), text);
    if facts.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), files)?;
        }
    }
    Ok(())
}
