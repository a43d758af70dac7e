use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// All that lies below some directories: kind, mode, owner, content, and when it was changed. Of directories the time
/// does not count, since making and removing a file in one changes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    /// What lies there now; what does not exist is not there.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn of(dirs: &[PathBuf]) -> Result<Self> {
        let mut tree = Self::default();
        for dir in dirs {
            tree.add(dir)?;
        }
        Ok(tree)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let Ok(meta) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        let common = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        let fact = if meta.is_dir() {
            for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
                self.add(&entry?.path())?;
            }
            common
        } else if meta.is_symlink() {
            format!("{common} -> {}", fs::read_link(path)?.display())
        } else {
            let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let digest = hex::encode(Sha256::digest(bytes));
            format!(
                "{common} {digest} {}.{:09}",
                meta.mtime(),
                meta.mtime_nsec()
            )
        };
        self.0.insert(path.to_owned(), fact);
        Ok(())
    }

    /// What is different in another one; empty if nothing is.
    #[must_use]
    pub fn difference(&self, other: &Self) -> String {
        let paths = self.0.keys().chain(other.0.keys());
        let mut lines: Vec<String> = paths
            .filter(|path| self.0.get(*path) != other.0.get(*path))
            .map(|path| {
                let (was, is) = (self.0.get(path), other.0.get(path));
                format!("{}: {was:?} became {is:?}", path.display())
            })
            .collect();
        // A path that both have comes twice.
        lines.sort();
        lines.dedup();
        lines.join("\n")
    }
}
