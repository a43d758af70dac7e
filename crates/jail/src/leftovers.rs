//! What is left of a container whose supervisor was killed.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::JailError;
use crate::sys;

/// How long the end of a killed process may take; uninterruptible sleep is the reason if it does.
const END: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Takes away everything that is mounted at the path itself. That it does not exist, or that
/// nothing is mounted there, is fine. Never follows a symbolic link.
///
/// # Errors
/// [`JailError::Unmount`] naming the path.
pub fn unmount_rootfs(target: &Path) -> Result<(), JailError> {
    loop {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more); not there.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => {
                return Err(JailError::Unmount {
                    path: target.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}

/// Kills a process and waits for its end. That there is none is fine.
///
/// The caller makes sure that the number still means the process that it is thinking of, e.g. by
/// its start time.
///
/// # Errors
/// [`JailError::System`] if it does not end within five seconds.
pub fn kill_and_wait(pid: i32) -> Result<(), JailError> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(());
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
        Err(errno) => return Err(JailError::errno("open a process")(errno)),
    };
    match sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        sent => sent.map_err(JailError::system("kill a process"))?,
    }
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut ended, Some(&END)) {
        Ok(0) => Err(JailError::System {
            attempt: "wait for a killed process to end",
            source: std::io::ErrorKind::TimedOut.into(),
        }),
        Ok(_) => Ok(()),
        Err(errno) => Err(JailError::errno("wait for a killed process to end")(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_fine() {
        unmount_rootfs(Path::new("/nonexistent/rootfs")).expect("nothing to do");
        kill_and_wait(0).expect("no process");
        let mut child = std::process::Command::new("true").spawn().expect("spawned");
        let pid = child.id().try_into().expect("a pid");
        child.wait().expect("waited for");
        kill_and_wait(pid).expect("it is gone");
    }

    #[test]
    fn a_process_is_killed() {
        use std::os::unix::process::ExitStatusExt;
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("spawned");
        kill_and_wait(child.id().try_into().expect("a pid")).expect("killed");
        assert_eq!(
            child.wait().expect("waited for").signal(),
            Some(libc::SIGKILL)
        );
    }
}
