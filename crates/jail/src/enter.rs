//! The jail, entered: one function, read from top to bottom.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use plan::{Access, Isolation};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

use crate::daemon::one_thread;
use crate::door::{Door, supervisor_is_there};
use crate::error::JailError;
use crate::holder::{mount_over_root, pivot_into};
use crate::step::Step;
use crate::sys::{self, MountAttr};
use crate::{privileges, seccomp};

/// From a process that is root on the host, in its cgroup and namespaces already, to one that can
/// compute, reach the pod's network and touch the container's files, and nothing else.
pub(crate) fn enter(door: &Door) -> Result<(), JailError> {
    let plan = &door.envelope.launch.jail;
    let step = |step: Step| move |error: io::Error| JailError::step(step, &error);

    // User, capabilities and filters belong to threads: one that exists already would escape them.
    one_thread()?;

    // While /proc is still there, and while root: lowering the score again is a privilege.
    if let Some(score) = plan.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(step(Step::OomScore))?;
    }

    if door.envelope.joins {
        // The container's view as it is, with its root. The host's tree goes for good here too.
        sys::setns(door.rootfs.as_raw_fd(), libc::CLONE_NEWNS)
            .map_err(step(Step::JoinNamespace))?;
    } else {
        make_view(door)?;
    }

    // Limits while root: raising a hard one is a privilege.
    for limit in &plan.rlimits {
        sys::set_rlimit(limit.resource, limit.soft, limit.hard).map_err(|source| {
            JailError::Inside {
                step: Step::Limits.to_string(),
                what: format!(
                    " (number {}: soft {}, hard {})",
                    limit.resource, limit.soft, limit.hard
                ),
                source,
            }
        })?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.user.umask.unwrap_or(0o022)));

    // Our filter is built while memory is ours alone to ask for, and loaded when rights are gone.
    let spec = door.envelope.launch.seccomp.as_ref();
    let own = seccomp::runner(spec.is_some());

    // The bounding set needs a capability to be emptied; the user takes the capabilities along.
    privileges::close_the_ways_back()
        .and_then(|()| {
            privileges::become_user(plan.user.uid, plan.user.gid, &plan.user.additional_gids)
        })
        .map_err(step(Step::Privileges))?;

    // After the change of user, which would undo it; and a supervisor that ended before it was set
    // is noticed here.
    if door.envelope.bound {
        privileges::die_with_the_parent().map_err(step(Step::Privileges))?;
        if !supervisor_is_there(&door.control) {
            return Err(JailError::Silent {
                who: "the supervisor",
            });
        }
    }

    // Ours first: the spec's may forbid loading filters. The stricter answer counts.
    own.load().map_err(step(Step::Filter))?;
    if let Some(spec) = spec {
        spec.load().map_err(step(Step::Filter))?;
    }
    Ok(())
}

/// The first process of a container makes what all of it sees: the host name and the mounts.
fn make_view(door: &Door) -> Result<(), JailError> {
    let plan = &door.envelope.launch.jail;
    let step = |step: Step| move |error: io::Error| JailError::step(step, &error);

    // Only a host name of our own is ours to set; a joined namespace has the pod's already.
    let new_uts = plan
        .namespaces
        .iter()
        .any(|one| one.kind == Isolation::Uts && one.path.is_none());
    if let Some(hostname) = plan.hostname.as_ref().filter(|_| new_uts) {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|errno| step(Step::Hostname)(errno.into()))?;
    }

    // The copy of the host's mounts is cut off first, so that nothing below shows there.
    sys::make_mounts_private().map_err(step(Step::CutMounts))?;

    // The rootfs is hardened before a single name in it is looked at: no device, no set-user-id
    // file. Natively nothing of it is executed. (Still writable: mount points may be missing.)
    let root = door.rootfs.as_fd();
    let hardened = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    let on_root = |attempt| {
        move |source| JailError::Mount {
            destination: "/".to_owned(),
            attempt,
            source,
        }
    };
    if !door.envelope.user_namespace {
        // In a user namespace the mount is the host's to change; rights there are no rights here.
        let attr = MountAttr {
            set: hardened,
            ..MountAttr::default()
        };
        sys::mount_setattr(root, true, &attr)
            .map_err(on_root("take devices and set-user-id files away"))?;
    }
    mount_over_root(root).map_err(on_root("put the rootfs in place"))?;

    // Volumes in the order of the spec: a later one may lie in an earlier one.
    for (volume, mounted) in door.volumes.iter().zip(&door.envelope.volumes) {
        let failed = |attempt| {
            move |errno: Errno| JailError::Mount {
                destination: mounted.destination.clone(),
                attempt,
                source: errno.into(),
            }
        };
        let place = mount_point(root, &mounted.destination, mounted.directory)
            .map_err(failed("find or make the mount point in the rootfs"))?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(volume, c"", &place, c"", flags).map_err(failed("put the volume in place"))?;
    }

    // Now nothing has to be made in the rootfs any more. Volumes keep their own rights.
    if door.envelope.root == Access::ReadOnly {
        let attr = MountAttr {
            set: sys::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        sys::mount_setattr(root, false, &attr).map_err(on_root("make the rootfs read-only"))?;
    }

    // The host's tree goes for good. There is no /proc, /sys or /dev from here on.
    pivot_into(root).map_err(on_root("leave the host's root"))
}

/// Every name is looked up as if the rootfs were `/`, symbolic links included.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The place of a mount (or a working directory); made, with its parents, where it is missing.
pub(crate) fn mount_point(
    root: BorrowedFd<'_>,
    destination: &str,
    directory: bool,
) -> Result<OwnedFd, Errno> {
    let look = |path: &str| {
        openat2(
            root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            IN_ROOT,
        )
    };
    match look(destination) {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let mut parent = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let mut path = String::new();
    let mut names = destination
        .split('/')
        .filter(|name| !name.is_empty())
        .peekable();
    while let Some(name) = names.next() {
        path.push('/');
        path.push_str(name);
        let last = names.peek().is_none();
        parent = match look(&path) {
            Err(Errno::NOENT) => {
                if !last || directory {
                    mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                } else {
                    let flags = OFlags::CREATE
                        | OFlags::EXCL
                        | OFlags::NOFOLLOW
                        | OFlags::WRONLY
                        | OFlags::CLOEXEC;
                    openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
                }
                // What was just made, and no link to somewhere else.
                openat(
                    &parent,
                    name,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?
            }
            found => found?,
        };
    }
    let stat = rustix::fs::fstat(&parent)?;
    if (FileType::from_raw_mode(stat.st_mode) == FileType::Directory) == directory {
        Ok(parent)
    } else {
        Err(Errno::NOTDIR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::unix::fs::symlink;

    fn root(dir: &std::path::Path) -> OwnedFd {
        openat(CWD, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("opened")
    }

    #[test]
    fn mount_points_are_made_inside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = root(dir.path());
        mount_point(root.as_fd(), "/a/b/c", true).expect("made");
        mount_point(root.as_fd(), "/a/b/file", false).expect("made");
        mount_point(root.as_fd(), "/a/b/c", true).expect("found");
        assert!(dir.path().join("a/b/c").is_dir() && dir.path().join("a/b/file").is_file());
    }

    #[test]
    fn symbolic_links_lead_nowhere_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let outside = tempfile::tempdir().expect("temporary directory");
        let inside = dir.path().join("root");
        std::fs::create_dir_all(inside.join("real")).expect("made");
        let root = root(&inside);
        symlink(outside.path(), inside.join("absolute")).expect("linked");
        symlink("../../..", inside.join("up")).expect("linked");
        symlink("/real", inside.join("good")).expect("linked");
        // The target does not exist below the rootfs, and a link cannot be made a directory.
        assert_eq!(
            mount_point(root.as_fd(), "/absolute/x", true).expect_err("leads out"),
            Errno::EXIST
        );
        mount_point(root.as_fd(), "/up/x", true).expect("`..` stops at the rootfs");
        assert!(inside.join("x").is_dir());
        mount_point(root.as_fd(), "/good/y", true).expect("a link inside");
        assert!(inside.join("real/y").is_dir());
        assert_eq!(
            std::fs::read_dir(outside.path()).expect("readable").count(),
            0
        );
    }
}
