//! Volumes as the kubelet leaves them on the node before it asks for the container that mounts them (Kubernetes
//! `pkg/volume`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::House;

/// The volumes of a pod. Dropping them unmounts what was mounted for them, as the kubelet does when the pod is gone.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Volumes {
    /// Those of a pod with this uid.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(house: &House, uid: &str) -> Result<Self> {
        let scratch = house.containerd.scratch().dir();
        let dir = scratch.join("kubelet/pods").join(uid);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self {
            dir,
            mounts: Vec::new(),
        })
    }

    /// An `emptyDir`: everybody may write.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn empty_dir(&self, name: &str) -> Result<PathBuf> {
        self.place("empty-dir", name, 0o777)
    }

    /// An `emptyDir` of `medium: Memory` with a `sizeLimit` in bytes.
    ///
    /// # Errors
    /// When the kernel refuses the mount.
    pub fn memory(&mut self, name: &str, size: u64) -> Result<PathBuf> {
        let dir = self.place("empty-dir", name, 0o777)?;
        self.tmpfs(&dir, &format!("size={size},mode=777"))?;
        Ok(dir)
    }

    /// A projected volume (also what a downwardAPI volume and a secret are): files in memory that can be replaced all at
    /// once. Their mode is `mode`.
    ///
    /// # Errors
    /// When the kernel refuses the mount, or a file cannot be written.
    pub fn projected(
        &mut self,
        name: &str,
        mode: u32,
        files: &[(&str, &str)],
    ) -> Result<Projected> {
        let dir = self.place("projected", name, 0o777)?;
        self.tmpfs(&dir, "mode=1777")?;
        let mut projected = Projected {
            dir,
            mode,
            number: 0,
        };
        projected.replace(files)?;
        Ok(projected)
    }

    /// A configMap: the same on the node's disk.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn config_map(&self, name: &str, files: &[(&str, &str)]) -> Result<Projected> {
        let mut projected = Projected {
            dir: self.place("configmap", name, 0o777)?,
            mode: 0o644,
            number: 0,
        };
        projected.replace(files)?;
        Ok(projected)
    }

    /// A `subPath`: what lies below a volume is bound to a place of its own, file or directory, and a container gets
    /// that. Links in the volume are followed now and never again.
    ///
    /// # Errors
    /// When there is no such file, or the kernel refuses the mount.
    pub fn sub_path(&mut self, volume: &Path, below: &str) -> Result<PathBuf> {
        let source = fs::canonicalize(volume.join(below))
            .with_context(|| format!("find {below} below {}", volume.display()))?;
        let place = self
            .dir
            .join("volume-subpaths")
            .join(self.mounts.len().to_string());
        if source.is_dir() {
            fs::create_dir_all(&place)?;
        } else {
            fs::create_dir_all(place.parent().context("below the pod")?)?;
            fs::write(&place, "")?;
        }
        self.mount(Some(&source), &place, None, MsFlags::MS_BIND, "")?;
        Ok(place)
    }

    fn place(&self, plugin: &str, name: &str, mode: u32) -> Result<PathBuf> {
        let plugin = format!("volumes/kubernetes.io~{plugin}");
        let dir = self.dir.join(plugin).join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        fs::set_permissions(&dir, PermissionsExt::from_mode(mode))?;
        Ok(dir)
    }

    fn tmpfs(&mut self, at: &Path, options: &str) -> Result<()> {
        self.mount(None, at, Some("tmpfs"), MsFlags::empty(), options)
    }

    fn mount(
        &mut self,
        source: Option<&Path>,
        at: &Path,
        kind: Option<&str>,
        flags: MsFlags,
        options: &str,
    ) -> Result<()> {
        mount(source, at, kind, flags, Some(options))
            .with_context(|| format!("mount {}", at.display()))?;
        self.mounts.push(at.to_owned());
        Ok(())
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            // What fails stays for `assert_clean` to find.
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
    }
}

/// A volume that the kubelet's atomic writer fills: the files are in a directory of their own, `..data` is a link to it,
/// and what people see are links through `..data`.
#[derive(Debug)]
pub struct Projected {
    dir: PathBuf,
    mode: u32,
    number: u32,
}

impl Projected {
    /// Where it is on the node.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts other files in the place of all that are there, in one step for whoever reads.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn replace(&mut self, files: &[(&str, &str)]) -> Result<()> {
        let data = self.dir.join("..data");
        let before = fs::read_link(&data).ok();
        self.number += 1;
        let name = format!("..2026_11_21_12_00_{:02}.123456789", self.number);
        let new = self.dir.join(&name);
        fs::create_dir(&new).with_context(|| format!("make {}", new.display()))?;
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        for (path, text) in files {
            let file = new.join(path);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, text)?;
            fs::set_permissions(&file, PermissionsExt::from_mode(self.mode))?;
        }
        let next = self.dir.join("..data_tmp");
        symlink(&name, &next)?;
        fs::rename(&next, &data)?;
        for (path, _) in files {
            let Some(Component::Normal(first)) = Path::new(path).components().next() else {
                continue;
            };
            let seen = self.dir.join(first);
            if seen.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(first), seen)?;
            }
        }
        if let Some(before) = before {
            fs::remove_dir_all(self.dir.join(before))?;
        }
        Ok(())
    }

    /// Gives the files to a group, as `fsGroup` asks for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_to_group(&self, group: u32) -> Result<()> {
        let data = fs::canonicalize(self.dir.join("..data"))?;
        let mut directories = vec![data];
        while let Some(directory) = directories.pop() {
            std::os::unix::fs::chown(&directory, None, Some(group))?;
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    std::os::unix::fs::chown(&path, None, Some(group))?;
                }
            }
        }
        Ok(())
    }
}
