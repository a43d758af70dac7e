//! How many processes a cgroup may have, and has.

use std::path::{Path, PathBuf};

use super::{Cgroup, statistics};
use crate::error::JailError;

/// A limit on the number of processes and threads (`pids.max`), and how far it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crowd {
    /// The cgroup that has the limit: the container's, or one above, such as its pod's.
    pub at: PathBuf,
    /// How many there are.
    pub tasks: u64,
    /// How many there may be.
    pub most: u64,
}

impl Cgroup {
    /// The limit that will be met first; `None` where there is none.
    ///
    /// The kernel holds it against who makes a process, and against nobody who brings one in from outside: on version 1,
    /// where a runner writes itself into its cgroup, that is for the supervisor to see to.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file that could not be read.
    pub fn crowd(&self) -> Result<Option<Crowd>, JailError> {
        let mut nearest: Option<Crowd> = None;
        for directory in self.with("pids").iter().flat_map(|own| own.ancestors()) {
            let Some(crowd) = crowd(directory)? else {
                continue;
            };
            let left = |crowd: &Crowd| crowd.most.saturating_sub(crowd.tasks);
            if nearest.as_ref().is_none_or(|one| left(&crowd) < left(one)) {
                nearest = Some(crowd);
            }
        }
        Ok(nearest)
    }
}

/// Of one directory; one without such a limit, or that is no cgroup at all, has none.
fn crowd(directory: &Path) -> Result<Option<Crowd>, JailError> {
    let most = statistics::limit(directory, "pids.max", u64::MAX)?;
    if most == u64::MAX {
        return Ok(None);
    }
    Ok(Some(Crowd {
        at: directory.to_owned(),
        tasks: statistics::number(directory, "pids.current")?,
        most,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_limit_has_no_crowd() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let put = |file: &str, text: &str| {
            std::fs::write(dir.path().join(file), text).expect("written");
        };
        assert_eq!(crowd(dir.path()).expect("read"), None);
        put("pids.current", "7\n");
        put("pids.max", "max\n");
        assert_eq!(crowd(dir.path()).expect("read"), None);
        put("pids.max", "20\n");
        let found = crowd(dir.path()).expect("read").expect("a limit");
        assert_eq!((found.tasks, found.most), (7, 20));
        assert_eq!(found.at, dir.path());
    }
}
