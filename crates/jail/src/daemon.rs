use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};

use crate::error::JailError;
use crate::sys;

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that was there before.
    Parent,
    /// The new one, in a session of its own.
    Daemon,
}

/// Forks the supervisor from a process that has one thread.
///
/// The daemon keeps the one descriptor; its standard streams are `/dev/null` and every other
/// descriptor is closed, so nothing of the caller is held open by it.
///
/// # Errors
/// [`JailError::Threads`] if there are other threads, which the daemon would lose in the middle of
/// whatever they do; [`JailError::System`] if the machine has no process to spare.
pub fn fork_daemon(keep: &impl AsFd) -> Result<Forked, JailError> {
    one_thread()?;
    let keep = keep.as_fd().as_raw_fd();
    // SAFETY: there is one thread, so the child may go on as if it had always been alone.
    match unsafe { libc::fork() } {
        -1 => Err(JailError::System {
            attempt: "fork the supervisor",
            source: std::io::Error::last_os_error(),
        }),
        0 => {
            become_daemon(keep)?;
            Ok(Forked::Daemon)
        }
        _ => Ok(Forked::Parent),
    }
}

fn become_daemon(keep: i32) -> Result<(), JailError> {
    rustix::process::setsid().map_err(JailError::errno("begin a session"))?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(JailError::errno("open /dev/null"))?;
    for stream in 0..3 {
        sys::place(null.as_raw_fd(), stream)
            .map_err(JailError::system("close the standard streams"))?;
    }
    drop(null);
    let close = |first: i32, last: i32| {
        // SAFETY: numbers alone. What is closed belongs to the caller of `start`, which has left
        // nothing open but the descriptor that is kept.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    if keep > 3 {
        close(3, keep - 1).map_err(JailError::system("close descriptors"))?;
    }
    close(keep.max(2) + 1, i32::MAX).map_err(JailError::system("close descriptors"))
}

/// Orphaned descendants become children of this process: so the first process of a native
/// container, whose maker ends.
///
/// # Errors
/// [`JailError::System`].
pub fn become_subreaper() -> Result<(), JailError> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(JailError::system("become a subreaper"))?;
    Ok(())
}

/// That the process has one thread, as what follows needs.
pub(crate) fn one_thread() -> Result<(), JailError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(JailError::system("count threads"))?
        .count();
    if threads == 1 {
        Ok(())
    } else {
        Err(JailError::Threads { threads })
    }
}
