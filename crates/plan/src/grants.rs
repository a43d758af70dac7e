use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What may be done below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Reading alone.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    /// The access that a mount's `readonly` flag stands for.
    #[must_use]
    pub const fn from_readonly(readonly: bool) -> Self {
        if readonly {
            Self::ReadOnly
        } else {
            Self::ReadWrite
        }
    }
}

/// A mount as the jail really made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where it is, absolute, in the guest's view.
    pub destination: String,
    /// Whether it is a directory; a single file is visible below its parent alone.
    pub directory: bool,
    /// What the kernel allows there.
    pub access: Access,
}

/// A directory that the guest is given, at the path by which it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preopen {
    /// Absolute path in the guest's view.
    pub path: String,
    /// The directory that this is; `None` is the same path, as in a jail.
    pub source: Option<PathBuf>,
    /// What WASI allows there; the kernel's mount says the same.
    pub access: Access,
}

impl Preopen {
    /// The directory that this is.
    #[must_use]
    pub fn source(&self) -> &Path {
        self.source.as_deref().unwrap_or(Path::new(&self.path))
    }
}

/// Where an absolute path of the guest's view is for the process that runs it; `None` if the guest does not see it.
///
/// By names alone: links, and what a guest may have put in their place, are for the caller to look at.
#[must_use]
pub fn in_process(preopens: &[Preopen], path: &Path) -> Option<PathBuf> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let below = |preopen: &&Preopen| plain && path.starts_with(&preopen.path);
    let nearest = preopens
        .iter()
        .filter(below)
        .max_by_key(|preopen| preopen.path.len())?;
    let rest = path.strip_prefix(&nearest.path).ok()?;
    // Joining nothing would add a slash.
    Some(if rest.as_os_str().is_empty() {
        nearest.source().to_owned()
    } else {
        nearest.source().join(rest)
    })
}

/// The directories that a guest sees: the rootfs at `/` and every directory mount at its path.
///
/// Sorted by path, so that a guest that takes the first match and one that takes the longest
/// prefix find the same directory for the root. A later mount over an earlier one replaces it.
#[must_use]
pub fn preopens(root: Access, mounts: &[Mounted]) -> Vec<Preopen> {
    let mut found = vec![Preopen {
        path: "/".to_owned(),
        source: None,
        access: root,
    }];
    for mount in mounts.iter().filter(|mount| mount.directory) {
        found.retain(|preopen| preopen.path != mount.destination);
        found.push(Preopen {
            path: mount.destination.clone(),
            source: None,
            access: mount.access,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(destination: &str, directory: bool, access: Access) -> Mounted {
        Mounted {
            destination: destination.to_owned(),
            directory,
            access,
        }
    }

    #[test]
    fn directories_are_preopened_files_are_not_and_the_last_mount_wins() {
        let found = preopens(
            Access::ReadOnly,
            &[
                mounted("/etc/app.conf", false, Access::ReadOnly),
                mounted("/data", true, Access::ReadOnly),
                mounted("/cache", true, Access::ReadOnly),
                mounted("/data", true, Access::ReadWrite),
            ],
        );
        let shown: Vec<_> = found.iter().map(|p| (p.path.as_str(), p.access)).collect();
        assert_eq!(
            shown,
            [
                ("/", Access::ReadOnly),
                ("/cache", Access::ReadOnly),
                ("/data", Access::ReadWrite)
            ]
        );
    }

    #[test]
    fn a_path_is_in_the_nearest_directory() {
        let preopen = |path: &str, source: Option<&str>| Preopen {
            path: path.to_owned(),
            source: source.map(PathBuf::from),
            access: Access::ReadOnly,
        };
        let all = [
            preopen("/", Some("/tmp/root")),
            preopen("/data", Some("/home/me/data")),
            preopen("/same", None),
        ];
        for (path, place) in [
            ("/etc/x", Some("/tmp/root/etc/x")),
            ("/data", Some("/home/me/data")),
            ("/data/a/b", Some("/home/me/data/a/b")),
            ("/database", Some("/tmp/root/database")),
            ("/same/x", Some("/same/x")),
            ("/data/../etc", None),
            ("data", None),
        ] {
            assert_eq!(
                in_process(&all, Path::new(path)),
                place.map(PathBuf::from),
                "{path}"
            );
        }
        assert_eq!(in_process(&all[1..], Path::new("/etc/x")), None);
    }
}
