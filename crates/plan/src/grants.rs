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
    /// Absolute path, the same in the jail and in the guest.
    pub path: String,
    /// What WASI allows there; the kernel's mount says the same.
    pub access: Access,
}

/// The directories that a guest sees: the rootfs at `/` and every directory mount at its path.
///
/// Sorted by path, so that a guest that takes the first match and one that takes the longest
/// prefix find the same directory for the root. A later mount over an earlier one replaces it.
#[must_use]
pub fn preopens(root: Access, mounts: &[Mounted]) -> Vec<Preopen> {
    let mut found = vec![Preopen {
        path: "/".to_owned(),
        access: root,
    }];
    for mount in mounts.iter().filter(|mount| mount.directory) {
        found.retain(|preopen| preopen.path != mount.destination);
        found.push(Preopen {
            path: mount.destination.clone(),
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
}
