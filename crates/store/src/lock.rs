//! Locks of one key: a byte of the file of locks, by open file description
//! (`F_OFD_SETLK`, Linux 3.15). Other than lock files, they leave nothing to clean up; other than
//! classic record locks, they exclude threads of one process and do not end when another
//! descriptor of the file is closed.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::key::Key;

/// Waits for the lock, which ends when the last copy of the descriptor is closed.
pub(crate) fn wait(file: &File, key: &Key) -> io::Result<()> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&range(key))) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes the lock if nobody has it.
pub(crate) fn attempt(file: &File, key: &Key) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(key))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn range(key: &Key) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: key.lock_byte(),
        l_len: 1,
        // Zero is demanded for locks by open file description (fcntl(2)).
        l_pid: 0,
    }
}
