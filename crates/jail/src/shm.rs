use std::path::Path;

use rustix::mount::{MountFlags, mount};

use crate::error::JailError;
use crate::leftovers::unmount_rootfs;

/// Makes the directory one of memory, of 64 MiB at most, for everybody: what the containers of a pod
/// have at `/dev/shm` (as containerd's CRI has it, `defaultShmSize`). That it is one already is fine.
///
/// # Errors
/// [`JailError::System`].
pub fn mount_shared_memory(at: &Path) -> Result<(), JailError> {
    const ATTEMPT: &str = "mount the pod's shared memory";
    let device = |path: &Path| {
        rustix::fs::stat(path)
            .map(|stat| stat.st_dev)
            .map_err(JailError::errno(ATTEMPT))
    };
    if device(at)? != device(&at.join(".."))? {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", at, "tmpfs", flags, c"mode=1777,size=65536k").map_err(JailError::errno(ATTEMPT))
}

/// Takes it away again. That it was not there is fine.
///
/// # Errors
/// [`JailError::Unmount`] naming the path.
pub fn unmount_shared_memory(at: &Path) -> Result<(), JailError> {
    unmount_rootfs(at)
}
