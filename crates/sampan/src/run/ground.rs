//! The directories that a pod would have made for its container, made for one run.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Kind, Outcome};
use crate::run::kept;

/// An empty root file system, and volumes. Gone at the end; what a killed run left, the next one removes.
pub(super) struct Ground {
    dir: TempDir,
    /// Locked as long as this run lives.
    _lock: File,
}

impl Ground {
    pub(super) fn new() -> Outcome<Self> {
        Self::make().map_err(|error| {
            Failure::at(Kind::System, "cannot make the guest's directories", error)
        })
    }

    fn make() -> anyhow::Result<Self> {
        let place = kept::place()
            .map_err(|failure| anyhow::anyhow!("{failure}"))?
            .join("run");
        std::fs::create_dir_all(&place)?;
        // One at a time: between making a directory and locking it, nobody may take it for a left one.
        let turn = File::open(&place)?;
        turn.lock()?;
        for left in std::fs::read_dir(&place)?.flatten() {
            let path = left.path();
            if File::open(&path).is_ok_and(|dir| dir.try_lock().is_ok()) {
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        let dir = TempDir::new_in(&place)?;
        let lock = File::open(dir.path())?;
        lock.lock()?;
        std::fs::create_dir(dir.path().join("root"))?;
        Ok(Self { dir, _lock: lock })
    }

    /// What the guest sees at `/` where no image has files.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// An empty directory.
    pub(super) fn empty(&self) -> Outcome<PathBuf> {
        self.volume(&BTreeMap::new())
    }

    /// A directory with these files.
    pub(super) fn volume(&self, files: &BTreeMap<String, Vec<u8>>) -> Outcome<PathBuf> {
        let failed = |error| {
            Failure::at(
                Kind::System,
                "cannot make a volume",
                anyhow::Error::new::<std::io::Error>(error),
            )
        };
        let dir = TempDir::new_in(self.dir.path()).map_err(failed)?.keep();
        for (name, content) in files {
            let Some(path) = below(&dir, name) else {
                return Err(Failure::new(
                    Kind::Wrong,
                    format!("`{name}` is no path of a volume's file"),
                ));
            };
            path.parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .map_err(failed)?;
            std::fs::write(path, content).map_err(failed)?;
        }
        Ok(dir)
    }

    /// Shows the name of a mount in the directory above, as a mount's own directory does. A root that cannot be written
    /// to does not show it; the guest reaches the mount all the same.
    pub(super) fn mark(&self, root: &Path, destination: &str) {
        if let Some(path) = below(root, destination.trim_start_matches('/')) {
            let _ = std::fs::create_dir_all(path);
        }
    }

    /// Puts a file where it would have been mounted.
    pub(super) fn put(&self, root: &Path, destination: &str, file: &Path) -> Outcome<()> {
        let path = below(root, destination.trim_start_matches('/')).ok_or_else(|| {
            Failure::new(Kind::Wrong, format!("`{destination}` is no path of a file"))
        })?;
        let copied = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::copy(file, &path));
        copied.map(drop).map_err(|error| {
            Failure::at(
                Kind::System,
                format!("cannot put {} at {destination}", file.display()),
                error,
            )
        })
    }
}

/// A path below a directory, if it is one by its names.
fn below(dir: &Path, relative: &str) -> Option<PathBuf> {
    let path = Path::new(relative);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && !relative.is_empty()).then(|| dir.join(path))
}
