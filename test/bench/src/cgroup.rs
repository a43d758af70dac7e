//! The cgroup that holds the containers of one run.

use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";

/// Removed from every hierarchy when dropped, if the runtimes left it empty.
pub(crate) struct CgroupParent(String);

impl CgroupParent {
    pub(crate) fn of_this_run() -> Self {
        Self(format!("sampan-bench-{}", std::process::id()))
    }

    /// As `linux.cgroupsPath` of a spec wants it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.0)
    }
}

impl Drop for CgroupParent {
    fn drop(&mut self) {
        // v2 is mounted at the root itself, v1 controllers and the hybrid's v2 one level below.
        let hierarchies = fs::read_dir(ROOT)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()));
        for hierarchy in hierarchies.chain([Path::new(ROOT).to_owned()]) {
            // Absent in most; a cgroup with children was left by a runtime and is better seen than hidden.
            let _ = fs::remove_dir(hierarchy.join(&self.0));
        }
    }
}
