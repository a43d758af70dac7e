//! The supervisor's end of a pseudo terminal.

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::JailError;
use crate::sys;

/// The master of a pseudo terminal. When it is dropped the terminal hangs up: its session gets SIGHUP.
#[derive(Debug)]
pub struct Master(AsyncFd<OwnedFd>);

impl Master {
    /// A new pseudo terminal of the host: the master, and the end that a process gets as its streams.
    ///
    /// Must be called inside a tokio runtime with I/O enabled, as [`Master::receive`].
    ///
    /// # Errors
    /// [`JailError::System`] where the host has no more of them.
    pub fn open() -> Result<(Self, OwnedFd), JailError> {
        let (master, slave) =
            sys::open_terminal().map_err(JailError::system("make a pseudo terminal"))?;
        Ok((Self::new(master)?, slave))
    }

    /// The master that a container runtime sends over a console socket (as runc does, `docs/terminals.md` there).
    ///
    /// # Errors
    /// [`JailError::System`] if no descriptor comes at once.
    pub fn receive(from: impl AsFd) -> Result<Self, JailError> {
        let attempt = "receive the container's terminal";
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 256];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(from, &mut [IoSliceMut::new(&mut name)], &mut control, flags)
            .map_err(JailError::errno(attempt))?;
        let sent = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match sent {
            Some(master) => Self::new(master),
            None => Err(JailError::System {
                attempt,
                source: ErrorKind::UnexpectedEof.into(),
            }),
        }
    }

    fn new(master: OwnedFd) -> Result<Self, JailError> {
        let attempt = "watch a pseudo terminal";
        rustix::io::ioctl_fionbio(&master, true).map_err(JailError::errno(attempt))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: an `OwnedFd` is the same descriptor as long as it lives.
        unsafe { AsyncFd::register_with_interest(master, both) }
            .map(Self)
            .map_err(|error| JailError::system(attempt)(error.into()))
    }

    /// Tells the terminal's size; its foreground processes get SIGWINCH.
    ///
    /// # Errors
    /// [`JailError::System`], which nothing is known to cause.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<(), JailError> {
        sys::set_window_size(self.0.get_ref().as_fd(), columns, rows)
            .map_err(JailError::system("set the terminal's size"))
    }

    /// What the processes have written; 0 when none of them has the terminal open any more.
    ///
    /// Nothing is lost when this future is dropped.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.read_now(bytes)? {
                Some(count) => return Ok(count),
                None => ready.clear_ready(),
            }
        }
    }

    /// The same, or `None` where that would have to wait. What was written before is not missed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read_now(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.0.get_ref(), &mut *bytes)) {
            Ok(count) => Ok(Some(count)),
            // So Linux says that the other end is closed.
            Err(Errno::IO) => Ok(Some(0)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Types these bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match rustix::io::retry_on_intr(|| rustix::io::write(self.0.get_ref(), bytes)) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
