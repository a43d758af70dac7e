use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A file system of its own at a directory, for as long as this lives: to be full, or read-only.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
    /// The directory was not there before.
    made: bool,
}

impl Disk {
    /// Mounts one in memory; `options` are those of tmpfs, as in `size=64k`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tmpfs(at: &Path, options: &str) -> Result<Self> {
        let made = !at.exists();
        fs::create_dir_all(at).with_context(|| format!("create {}", at.display()))?;
        let kind = Some("tmpfs");
        mount(kind, at, kind, MsFlags::empty(), Some(options))
            .with_context(|| format!("mount a tmpfs at {}", at.display()))?;
        Ok(Self {
            at: at.to_owned(),
            made,
        })
    }

    /// Leaves no room on it, down to the last page.
    ///
    /// # Errors
    /// When the file that did not fit any more cannot be removed.
    pub fn fill(&self) -> Result<()> {
        for number in 0.. {
            let name = self.at.join(format!("filler-{number}"));
            if fs::write(&name, [b'x'; 4096]).is_err() {
                fs::remove_file(&name).with_context(|| format!("remove {}", name.display()))?;
                break;
            }
        }
        Ok(())
    }

    /// Lets nobody write to it any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_only(&self) -> Result<()> {
        let none = None::<&str>;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &self.at, none, flags, none)
            .with_context(|| format!("make {} read-only", self.at.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        if self.made {
            drop(fs::remove_dir(&self.at));
        }
    }
}
