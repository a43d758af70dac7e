//! A network namespace made beforehand, as CRI makes the pod's before it asks for any container.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Bound to a file for others to join; unbound when dropped.
pub(crate) struct NetworkNamespace {
    path: PathBuf,
}

impl NetworkNamespace {
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("create {path:?}"))?;
        let target = path.clone();
        // A thread of its own leaves the namespace and ends; the bind mount keeps the namespace.
        std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("bind the network namespace to {target:?}"))
        })
        .join()
        .map_err(|_| anyhow!("the thread that makes the network namespace panicked"))??;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here than the system does at its end.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
