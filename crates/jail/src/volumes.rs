//! The mounts over the rootfs, opened by the supervisor as detached mounts with all their
//! attributes: what the runner gets can only be put in its place.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use plan::{Access, MountPlan, MountSource, Mounted, Propagation};
use rustix::fs::{CWD, FileType};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

use crate::error::JailError;
use crate::owners::Mappings;
use crate::sys::{self, MountAttr};

/// One mount, detached, and what it will be in the container.
pub(crate) struct Volume {
    pub(crate) mount: OwnedFd,
    pub(crate) mounted: Mounted,
}

/// Opens what the plan wants mounted.
pub(crate) fn open(plan: &MountPlan, mappings: &mut Mappings) -> Result<Volume, JailError> {
    let mount = match &plan.source {
        MountSource::Bind {
            path,
            recursive,
            owners,
        } => {
            let failed = |source: std::io::Error| JailError::Volume {
                destination: plan.destination.clone(),
                path: path.clone(),
                source,
            };
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            if *recursive {
                flags |= OpenTreeFlags::AT_RECURSIVE;
            }
            let tree = open_tree(CWD, path, flags).map_err(|errno| failed(errno.into()))?;
            // In the kernel's words, on every mount below: no way to a device, to another user's
            // rights or to native code; and writing where the pod's manifest allows it alone.
            let attr = MountAttr {
                set: sys::MOUNT_ATTR_NOSUID
                    | sys::MOUNT_ATTR_NODEV
                    | sys::MOUNT_ATTR_NOEXEC
                    | if plan.readonly {
                        sys::MOUNT_ATTR_RDONLY
                    } else {
                        0
                    },
                propagation: match plan.propagation {
                    Propagation::Private => libc::MS_PRIVATE,
                    Propagation::Slave => libc::MS_SLAVE,
                    Propagation::Shared => libc::MS_SHARED,
                },
                ..MountAttr::default()
            };
            sys::mount_setattr(tree.as_fd(), true, &attr).map_err(failed)?;
            if let Some(owners) = owners {
                mappings.give(tree.as_fd(), owners).map_err(|error| {
                    let JailError::System { source, .. } = error else {
                        return error;
                    };
                    JailError::Mount {
                        destination: plan.destination.clone(),
                        attempt: "map the owners of its files, which its file system may not be able to",
                        source,
                    }
                })?;
            }
            tree
        }
        MountSource::Tmpfs { options } => {
            tmpfs(options, plan.readonly).map_err(|errno| JailError::Mount {
                destination: plan.destination.clone(),
                attempt: "make a tmpfs",
                source: errno.into(),
            })?
        }
    };
    let stat = rustix::fs::fstat(&mount).map_err(JailError::errno("look at a volume"))?;
    Ok(Volume {
        mount,
        mounted: Mounted {
            destination: plan.destination.clone(),
            directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
            access: Access::from_readonly(plan.readonly),
        },
    })
}

fn tmpfs(options: &str, readonly: bool) -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or(rustix::io::Errno::INVAL)?;
        let value = CString::new(value).map_err(|_| rustix::io::Errno::INVAL)?;
        fsconfig_set_string(&context, key, value.as_c_str())?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// An empty tmpfs that nothing can be written to: the root of a process that needs no files.
pub(crate) fn nothing() -> Result<OwnedFd, JailError> {
    tmpfs("size=4k,mode=555", true).map_err(JailError::errno("make an empty root"))
}
