//! The container's root filesystem as a detached mount: made by the supervisor, in nobody's
//! mount namespace, so that it is gone with the last descriptor of it, whoever is killed when.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use plan::Owners;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    open_tree,
};

use crate::error::JailError;
use crate::leftovers::unmount_rootfs;
use crate::owners::{self, Mappings};
use crate::sys::{self, MountAttr};

/// A mount as containerd's Create request has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsMount {
    /// `overlay`, `bind`, `ext4`, ...
    pub fstype: String,
    /// Device or directory.
    pub source: String,
    /// As for mount(8).
    pub options: Vec<String>,
}

/// A root filesystem that is mounted nowhere, or ([`Rootfs::attach`]) at one place.
#[derive(Debug)]
pub struct Rootfs {
    mount: OwnedFd,
    readonly: bool,
    attached: Option<PathBuf>,
}

/// The longest value that `fsconfig` takes as a string.
const LONGEST: usize = 255;

impl Rootfs {
    /// Puts the rootfs together without mounting it anywhere.
    ///
    /// Several mounts, and what an older kernel cannot do detached (a list of layers longer than
    /// 255 bytes before Linux 6.7), are mounted at `fallback_target`, picked up from there, and
    /// unmounted again before this returns.
    ///
    /// # Errors
    /// [`JailError::Rootfs`] naming the mount, [`JailError::RootfsOption`] naming the option.
    pub fn assemble(mounts: &[RootfsMount], fallback_target: &Path) -> Result<Self, JailError> {
        let failed = |one: &RootfsMount| {
            let what = format!("{} {}", one.fstype, one.source);
            move |source: io::Error| JailError::Rootfs { what, source }
        };
        let parsed = mounts
            .iter()
            .map(Options::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if let ([one], [options]) = (mounts, parsed.as_slice()) {
            let found = |mount| Self {
                mount,
                readonly: options.readonly,
                attached: None,
            };
            if let Some(owners) = &options.owners {
                return mapped(one, options, owners, fallback_target).map(found);
            }
            match detached(one, options) {
                Ok(mount) => return Ok(found(mount)),
                Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) if !options.bind => {}
                Err(errno) => return Err(failed(one)(errno.into())),
            }
        }
        if let Some(one) = mounts
            .iter()
            .zip(&parsed)
            .find_map(|(one, options)| options.owners.as_ref().map(|_| one))
        {
            // No snapshotter does that.
            return Err(failed(one)(io::ErrorKind::Unsupported.into()));
        }
        // The place is ours alone: the bundle's.
        let at = fallback_target;
        std::fs::create_dir_all(at).map_err(|source| JailError::Rootfs {
            what: at.display().to_string(),
            source,
        })?;
        for (one, options) in mounts.iter().zip(&parsed) {
            if let Err(errno) = attached(one, options, at) {
                unmount_rootfs(at)?;
                return Err(failed(one)(errno.into()));
            }
        }
        let rootfs = Self::directory(at);
        unmount_rootfs(at)?;
        let readonly = parsed.last().is_some_and(|options| options.readonly);
        rootfs.map(|rootfs| Self { readonly, ..rootfs })
    }

    /// A directory of the host as it stands, with what is mounted below it.
    ///
    /// # Errors
    /// [`JailError::Rootfs`] naming the path.
    pub fn directory(path: &Path) -> Result<Self, JailError> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let mount = open_tree(CWD, path, flags).map_err(|errno| JailError::Rootfs {
            what: path.display().to_string(),
            source: errno.into(),
        })?;
        Ok(Self {
            mount,
            readonly: false,
            attached: None,
        })
    }

    /// Takes devices and set-user-id files away, on every mount of it.
    pub(crate) fn harden(&self) -> Result<(), JailError> {
        let attr = MountAttr {
            set: sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV,
            ..MountAttr::default()
        };
        sys::mount_setattr(self.mount.as_fd(), true, &attr)
            .map_err(JailError::system("take devices and set-user-id files away"))
    }

    /// Its root, for `openat2` with `RESOLVE_IN_ROOT`: nothing else can be reached through it.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// Whether the mount itself refuses writing.
    pub(crate) const fn readonly(&self) -> bool {
        self.readonly
    }

    /// Mounts it in the host's view, for a native container: libcontainer wants a path.
    ///
    /// # Errors
    /// [`JailError::Rootfs`] naming the target.
    pub fn attach(&mut self, target: &Path) -> Result<(), JailError> {
        let failed = |source: io::Error| JailError::Rootfs {
            what: target.display().to_string(),
            source,
        };
        std::fs::create_dir_all(target).map_err(failed)?;
        move_mount(
            &self.mount,
            "",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|errno| failed(errno.into()))?;
        self.attached = Some(target.to_owned());
        Ok(())
    }

    /// Takes it out of the host's view again; nothing to do where it never was there.
    ///
    /// # Errors
    /// [`JailError::Unmount`] naming the target.
    pub fn unmount(&self) -> Result<(), JailError> {
        match &self.attached {
            Some(target) => unmount_rootfs(target),
            None => Ok(()),
        }
    }
}

/// Mount options, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    bind: bool,
    recursive: bool,
    readonly: bool,
    /// Attributes of the mount, beside read-only.
    attributes: MountAttrFlags,
    /// For the filesystem: a key and perhaps a value.
    data: Vec<(String, Option<String>)>,
    /// Whom the image's files belong to in a user namespace.
    owners: Option<Owners>,
}

impl Options {
    fn parse(one: &RootfsMount) -> Result<Self, JailError> {
        let mut parsed = Self {
            bind: one.fstype == "bind",
            recursive: false,
            readonly: false,
            attributes: MountAttrFlags::empty(),
            data: Vec::new(),
            owners: None,
        };
        let mut owners = Owners {
            uids: Vec::new(),
            gids: Vec::new(),
            recursive: false,
        };
        for option in &one.options {
            // These are not the filesystem's but containerd's own mounting code's.
            let mapping = |list: &mut Vec<_>, text| {
                *list = owners::parse(text).ok_or_else(|| JailError::RootfsOption {
                    option: option.clone(),
                })?;
                Ok(())
            };
            if let Some(text) = option.strip_prefix("uidmap=") {
                mapping(&mut owners.uids, text)?;
                continue;
            }
            if let Some(text) = option.strip_prefix("gidmap=") {
                mapping(&mut owners.gids, text)?;
                continue;
            }
            match option.as_str() {
                "bind" => parsed.bind = true,
                "rbind" => (parsed.bind, parsed.recursive) = (true, true),
                "ro" => parsed.readonly = true,
                "rw" => parsed.readonly = false,
                "nosuid" => parsed.attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
                "nodev" => parsed.attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
                "noexec" => parsed.attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
                "noatime" => parsed.attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
                "nodiratime" => parsed.attributes |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
                "suid" | "dev" | "exec" | "relatime" | "defaults" | "async" | "" | "private"
                | "rprivate" => {}
                // For userspace alone, by the convention of mount(8).
                _ if option.starts_with("X-") || option.starts_with("x-") => {}
                "loop" => {
                    return Err(JailError::RootfsOption {
                        option: option.clone(),
                    });
                }
                _ => parsed.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                }),
            }
        }
        parsed.owners = match (owners.uids.is_empty(), owners.gids.is_empty()) {
            (true, true) => None,
            (false, false) => Some(owners),
            _ => {
                return Err(JailError::RootfsOption {
                    option: "uidmap and gidmap, one without the other".to_owned(),
                });
            }
        };
        Ok(parsed)
    }

    fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        for (attribute, flag) in [
            (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        ] {
            if self.attributes.contains(attribute) {
                flags |= flag;
            }
        }
        if self.readonly {
            flags |= MountFlags::RDONLY;
        }
        flags
    }
}

fn detached(one: &RootfsMount, options: &Options) -> Result<OwnedFd, Errno> {
    if options.bind {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if options.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = open_tree(CWD, one.source.as_str(), flags)?;
        let attr = MountAttr {
            set: u64::from(options.attributes.bits())
                | if options.readonly {
                    sys::MOUNT_ATTR_RDONLY
                } else {
                    0
                },
            propagation: libc::MS_PRIVATE,
            ..MountAttr::default()
        };
        sys::mount_setattr(tree.as_fd(), true, &attr)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        return Ok(tree);
    }
    let context = fsopen(one.fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", one.source.as_str())?;
    for (key, value) in &options.data {
        match value {
            None => fsconfig_set_flag(&context, key.as_str())?,
            Some(layers) if key == "lowerdir" && layers.len() > LONGEST => {
                for layer in split_layers(layers) {
                    fsconfig_set_string(&context, "lowerdir+", layer.as_str())?;
                }
            }
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
        }
    }
    let mut attributes = options.attributes;
    if options.readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        // A device is opened for reading alone then; filesystems without the notion ignore it.
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// With other owners. containerd's snapshotters want the image's files mapped, and leave what the container writes to as
/// it is: its owner there is the container's root already.
fn mapped(
    one: &RootfsMount,
    options: &Options,
    owners: &Owners,
    at: &Path,
) -> Result<OwnedFd, JailError> {
    let failed = |errno: Errno| JailError::Rootfs {
        what: format!("{} {}", one.fstype, one.source),
        source: errno.into(),
    };
    let mut mappings = Mappings::default();
    if options.bind {
        let tree = detached(one, options).map_err(failed)?;
        let owner = owners::owner(&tree)?;
        let given = owners
            .uids
            .iter()
            .any(|(_, outside, count)| (*outside..outside.saturating_add(*count)).contains(&owner));
        if !given {
            mappings.give(tree.as_fd(), owners)?;
        }
        return Ok(tree);
    }
    // overlayfs itself knows no mapping, but takes layers that have one: each is put over itself.
    let layers: Vec<String> = options
        .data
        .iter()
        .filter(|(key, _)| key == "lowerdir")
        .filter_map(|(_, value)| value.as_deref())
        .flat_map(split_layers)
        .collect();
    owners::out_of_sight(|| {
        for layer in &layers {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, layer.as_str(), flags).map_err(failed)?;
            mappings.give(tree.as_fd(), owners)?;
            move_mount(
                &tree,
                "",
                CWD,
                layer.as_str(),
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )
            .map_err(failed)?;
        }
        match detached(one, options) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
            made => return made.map_err(failed),
        }
        std::fs::create_dir_all(at).map_err(|source| JailError::Rootfs {
            what: at.display().to_string(),
            source,
        })?;
        attached(one, options, at).map_err(failed)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, at, flags).map_err(failed)
    })
}

/// The older way: mount(2), at a path.
fn attached(one: &RootfsMount, options: &Options, at: &Path) -> Result<(), Errno> {
    if options.bind {
        let tree = detached(one, options)?;
        return move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    }
    let data: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| {
            value
                .as_ref()
                .map_or_else(|| key.clone(), |value| format!("{key}={value}"))
        })
        .collect();
    let data = CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
    mount(
        one.source.as_str(),
        at,
        one.fstype.as_str(),
        options.flags(),
        data.as_c_str(),
    )
}

/// Takes `a:b:c` apart; a colon that belongs to a name has a backslash before it.
fn split_layers(layers: &str) -> Vec<String> {
    let mut split = vec![String::new()];
    let mut characters = layers.chars();
    while let Some(character) = characters.next() {
        let Some(last) = split.last_mut() else { break };
        match character {
            '\\' => last.extend(characters.next()),
            ':' => split.push(String::new()),
            _ => last.push(character),
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> RootfsMount {
        RootfsMount {
            fstype: "overlay".into(),
            source: "overlay".into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    #[test]
    fn options_are_taken_apart() {
        let parsed = Options::parse(&overlay(&[
            "index=off",
            "lowerdir=/a:/b",
            "userxattr",
            "ro",
            "nosuid",
            "X-containerd.x",
        ]))
        .expect("valid");
        assert!(parsed.readonly && !parsed.bind);
        assert_eq!(parsed.attributes, MountAttrFlags::MOUNT_ATTR_NOSUID);
        assert_eq!(
            parsed.data,
            [
                ("index".to_owned(), Some("off".to_owned())),
                ("lowerdir".to_owned(), Some("/a:/b".to_owned())),
                ("userxattr".to_owned(), None)
            ]
        );
        let owners = Options::parse(&overlay(&["uidmap=0:1:2", "gidmap=0:3:4"]))
            .expect("valid")
            .owners
            .expect("mapped");
        assert_eq!(
            (owners.uids, owners.gids),
            (vec![(0, 1, 2)], vec![(0, 3, 4)])
        );
        for wrong in ["loop", "uidmap=0:1", "gidmap=x", "uidmap=0:1:2"] {
            let error = Options::parse(&overlay(&[wrong]))
                .expect_err("not ours")
                .to_string();
            let name = wrong.split('=').next().expect("a name");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn layers_are_split_at_bare_colons() {
        assert_eq!(split_layers(r"/a:/b\:c:/d\\e"), ["/a", "/b:c", r"/d\e"]);
    }
}
