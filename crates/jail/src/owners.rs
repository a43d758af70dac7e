//! Mounts whose files belong to others than the file system says (mount_setattr(2), "ID-mapped mounts").

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use plan::Owners;
use rustix::fs::{Mode, OFlags};

use crate::child::Child;
use crate::error::JailError;
use crate::privileges;
use crate::step::Step;
use crate::sys::{self, Cloned, MountAttr};

/// The mappings that were wanted so far. The kernel takes one as a user namespace that has it; nobody need be in it.
#[derive(Debug, Default)]
pub(crate) struct Mappings(Vec<(Owners, OwnedFd)>);

impl Mappings {
    /// Gives the files of a detached mount to others. Once only: the kernel refuses a second time.
    pub(crate) fn give(&mut self, mount: BorrowedFd<'_>, owners: &Owners) -> Result<(), JailError> {
        let known = self
            .0
            .iter()
            .position(|(known, _)| (&known.uids, &known.gids) == (&owners.uids, &owners.gids));
        let index = match known {
            Some(index) => index,
            None => {
                self.0.push((owners.clone(), namespace(owners)?));
                self.0.len() - 1
            }
        };
        let attr = MountAttr {
            set: sys::MOUNT_ATTR_IDMAP,
            userns_fd: self.0[index].1.as_raw_fd().cast_unsigned().into(),
            ..MountAttr::default()
        };
        sys::mount_setattr(mount, owners.recursive, &attr)
            .map_err(JailError::system("map the owners of a mount's files"))
    }
}

/// A user namespace with these mappings, made by a process that is gone when this returns.
fn namespace(owners: &Owners) -> Result<OwnedFd, JailError> {
    let mask = sys::block_signals();
    // SAFETY: the child makes two system calls, and then waits to be killed.
    let cloned = match unsafe { sys::clone(libc::CLONE_NEWUSER as u64, None) } {
        Ok(Cloned::Child) => {
            let _ = privileges::die_with_the_parent();
            loop {
                // Nothing is in the set, so nothing ever comes.
                let _ = sys::wait_for_signal(&sys::signal_set(&[]));
            }
        }
        other => other,
    };
    sys::set_signal_mask(&mask);
    let Cloned::Parent { pid, pidfd } =
        cloned.map_err(JailError::system("make a user namespace"))?
    else {
        sys::exit(127)
    };
    let child = Child::new(pid, pidfd, None);
    map(child.pid(), &owners.uids, &owners.gids)?;
    rustix::fs::open(
        format!("/proc/{}/ns/user", child.pid()),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(JailError::errno("open a user namespace"))
}

/// Gives the user namespace that a process has just made its mappings.
pub(crate) fn map(
    pid: i32,
    uids: &[(u32, u32, u32)],
    gids: &[(u32, u32, u32)],
) -> Result<(), JailError> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let text: String = mappings
            .iter()
            .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"))
            .collect();
        std::fs::write(format!("/proc/{pid}/{file}"), text).map_err(|source| {
            JailError::Inside {
                step: Step::MapIds.to_string(),
                what: format!(" ({file})"),
                source,
            }
        })?;
    }
    Ok(())
}

/// What an option of containerd's snapshotters says: `INSIDE:OUTSIDE:COUNT`, several by commas.
pub(crate) fn parse(text: &str) -> Option<Vec<(u32, u32, u32)>> {
    text.split(',')
        .map(|one| {
            let mut numbers = one.split(':').map(str::parse);
            match (
                numbers.next(),
                numbers.next(),
                numbers.next(),
                numbers.next(),
            ) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) => {
                    Some((inside, outside, count))
                }
                _ => None,
            }
        })
        .collect()
}

/// Puts something together in a mount namespace of a thread's own, which goes with it: what is mounted meanwhile nobody
/// else sees, and nobody has to unmount.
pub(crate) fn out_of_sight<T: Send>(
    make: impl FnOnce() -> Result<T, JailError> + Send,
) -> Result<T, JailError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare(libc::CLONE_NEWNS)
                .and_then(|()| sys::make_mounts_private())
                .map_err(JailError::system("make a mount namespace"))?;
            make()
        });
        thread.join().unwrap_or(Err(JailError::System {
            attempt: "put a rootfs together",
            source: io::ErrorKind::Other.into(),
        }))
    })
}

/// The owner of a directory on the host.
pub(crate) fn owner(directory: impl AsFd) -> Result<u32, JailError> {
    rustix::fs::fstat(directory)
        .map(|stat| stat.st_uid)
        .map_err(JailError::errno("look at a rootfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_snapshotters_are_read() {
        assert_eq!(parse("0:100000:65536"), Some(vec![(0, 100_000, 65_536)]));
        assert_eq!(
            parse("0:1000:1,1:100000:65535"),
            Some(vec![(0, 1000, 1), (1, 100_000, 65_535)])
        );
        for text in ["", "0:1", "0:1:2:3", "a:1:2", "0:1:2,"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
