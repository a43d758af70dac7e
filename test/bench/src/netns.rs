//! A network namespace made beforehand, as CRI makes the pod's before it asks for any container.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Bound to a file for others to join; unbound when dropped.
pub(crate) struct NetworkNamespace {
    path: PathBuf,
}

impl NetworkNamespace {
    /// With its loopback device up and no other.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("create {path:?}"))?;
        let target = path.clone();
        // A thread of its own leaves the namespace and ends; the bind mount keeps the namespace.
        std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
            // A process is in the namespace of the thread that started it.
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .output()
                .context("run ip: install the package iproute2")?;
            ensure!(
                up.status.success(),
                "ip link set lo up: {}",
                String::from_utf8_lossy(&up.stderr).trim()
            );
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

/// Puts the calling thread, which must not be used for anything else afterwards, into the namespace at `path`.
pub(crate) fn join(path: &Path) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("open {path:?}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("join the network namespace {path:?}"))
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // Nothing more can be done about a failure here than the system does at its end.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
