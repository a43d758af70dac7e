use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plan::{Access, Mounted, Preopen};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::error::JailError;
use crate::spans::SpanReceiver;
use crate::step::{Failed, Step};
use crate::sys;
use crate::wire::{self, GO, Packet, Refusal, RefusalKind, Report};

/// A child process of the supervisor, by a descriptor that means it and never another.
///
/// Dropping it before [`Child::reap`] gave its status kills it and waits for its end, so that a
/// container that could not be created leaves neither a process nor a zombie.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    control: Option<Arc<OwnedFd>>,
    reaped: AtomicBool,
    view: Option<View>,
}

/// What a runner sees below `/`, for others that join it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) mounted: Vec<Mounted>,
    pub(crate) root: Access,
}

impl Drop for Child {
    fn drop(&mut self) {
        if !*self.reaped.get_mut() {
            let _ = self.kill(libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

impl Child {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, control: Option<OwnedFd>) -> Self {
        Self {
            pid,
            pidfd,
            control: control.map(Arc::new),
            reaped: AtomicBool::new(false),
            view: None,
        }
    }

    pub(crate) fn seeing(mut self, view: View) -> Self {
        self.view = Some(view);
        self
    }

    /// The directories that a runner's guest is given; `None` for processes that are no runner.
    #[must_use]
    pub fn preopens(&self) -> Option<Vec<Preopen>> {
        let view = self.view.as_ref()?;
        Some(plan::preopens(view.root, &view.mounted))
    }

    pub(crate) const fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether its status was taken: its number may be another process's then.
    pub(crate) fn is_gone(&self) -> bool {
        self.reaped.load(Ordering::Relaxed)
    }

    /// A process that became this one's child without being made by it: the first process of a
    /// native container, which came to us because we are a subreaper.
    ///
    /// # Errors
    /// [`JailError::System`] if there is no such process.
    pub fn adopt(pid: i32) -> Result<Self, JailError> {
        let known = Pid::from_raw(pid).ok_or(JailError::System {
            attempt: "open the container's process",
            source: io::ErrorKind::NotFound.into(),
        })?;
        let pidfd = pidfd_open(known, PidfdFlags::empty())
            .map_err(JailError::errno("open the container's process"))?;
        Ok(Self::new(pid, pidfd, None))
    }

    /// Its number, in the supervisor's pid namespace.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The supervisor's end of the wire; readable when there is a report. Only runners have one.
    #[must_use]
    pub fn control(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(AsFd::as_fd)
    }

    /// The runner's report, or `None` when there is none yet. Never waits.
    ///
    /// # Errors
    /// [`JailError::Silent`] if the process ended, or was killed, before it said anything.
    pub fn read_report(&self) -> Result<Option<Report>, JailError> {
        let silent = JailError::Silent {
            who: "the container's process",
        };
        let Some(control) = &self.control else {
            return Err(silent);
        };
        match wire::next(control, false)? {
            None => Ok(None),
            Some(Packet::Report(report)) => Ok(Some(report)),
            Some(Packet::Failed(failed)) => Ok(Some(Report::Refused(refusal(failed)))),
            Some(Packet::Waiting | Packet::Holding) => Err(silent),
        }
    }

    /// What a runner tells of its guest's requests, from [`Report::Ready`] on. Only runners tell.
    #[must_use]
    pub fn spans(&self) -> Option<SpanReceiver> {
        self.control.clone().map(SpanReceiver::new)
    }

    /// The word to go, once, after [`Report::Ready`].
    ///
    /// # Errors
    /// [`JailError::System`] if the process has ended.
    pub fn go(&self) -> Result<(), JailError> {
        match &self.control {
            Some(control) => word(control.as_fd()),
            None => Ok(()),
        }
    }

    /// The bytes of memory that a runner's guest may have from now on; the runner looks when the guest asks for more.
    /// That the process has ended, or is none of a guest, is fine.
    ///
    /// # Errors
    /// [`JailError::System`].
    pub fn set_memory(&self, bytes: u64) -> Result<(), JailError> {
        let Some(control) = &self.control else {
            return Ok(());
        };
        let mut packet = [wire::MEMORY; 9];
        packet[1..].copy_from_slice(&bytes.to_le_bytes());
        match rustix::net::send(control, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(()),
            Err(errno) => Err(JailError::errno("tell the guest its memory limit")(errno)),
        }
    }

    /// Sends a signal; 0 asks whether it would arrive. That the process has ended is fine.
    ///
    /// # Errors
    /// [`JailError::System`], e.g. for a number that is no signal.
    pub fn kill(&self, signal: i32) -> Result<(), JailError> {
        match sys::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent.map_err(JailError::system("send a signal")),
        }
    }

    /// Takes the status of a process that has ended: its exit code, or 128 and the number of the
    /// signal that killed it. `None` while it has not. Valid once: the process is gone then.
    ///
    /// # Errors
    /// [`JailError::System`] if it is not a child (any more).
    pub fn reap(&self) -> Result<Option<i32>, JailError> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options)
            .map_err(JailError::errno("wait for the container's process"))?;
        Ok(status.map(|status| {
            self.reaped.store(true, Ordering::Relaxed);
            let killed = status.terminating_signal().map(|signal| 128 + signal);
            status.exit_status().or(killed).unwrap_or(255)
        }))
    }
}

pub(crate) fn word(control: BorrowedFd<'_>) -> Result<(), JailError> {
    rustix::net::send(control, &[GO], SendFlags::NOSIGNAL)
        .map_err(JailError::errno("let the process go on"))?;
    Ok(())
}

/// A child's number, in words.
pub(crate) fn in_words(failed: Failed) -> JailError {
    JailError::Inside {
        step: failed.step.to_string(),
        what: match failed.step {
            Step::JoinNamespace | Step::Sysctl | Step::JoinCgroup => {
                format!(" (number {})", failed.index + 1)
            }
            _ => String::new(),
        },
        source: io::Error::from_raw_os_error(failed.errno),
    }
}

fn refusal(failed: Failed) -> Refusal {
    let kind = match failed.errno {
        libc::EPERM | libc::EACCES => RefusalKind::Permission,
        _ => RefusalKind::Internal,
    };
    Refusal {
        kind,
        message: in_words(failed).one_line(),
    }
}
