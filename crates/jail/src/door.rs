//! The runner's side: from the descriptors that it was given to a guest that may run.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plan::trace::Tracing;
use plan::{Access, GuestPlan, Mounted};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;

use crate::enter;
use crate::error::JailError;
use crate::numbers::Numbers;
use crate::spans::SpanSender;
use crate::spawn::take;
use crate::sys;
use crate::wire::{
    self, ARTIFACT, CONTROL, Envelope, FIRST_VOLUME, LAUNCH, Laps, Launch, NUMBERS, ROOTFS,
    Refusal, RefusalKind, Report,
};

/// A runner before the jail: it still sees the host, and prepares what needs that.
#[derive(Debug)]
pub struct Door {
    pub(crate) envelope: Envelope<Launch>,
    pub(crate) control: OwnedFd,
    artifact: File,
    pub(crate) rootfs: OwnedFd,
    pub(crate) volumes: Vec<OwnedFd>,
    numbers: Numbers,
    opened_within: Duration,
    opened: Instant,
}

impl Door {
    /// Takes over what the supervisor placed: 3 the wire, 4 the artifact, 5 the rootfs (or the mount namespace of the
    /// container to be joined), 6 the plan, 7 where it counts, from 8 on the volumes. To be called once, first, by a process
    /// that [`crate::spawn`] executed.
    ///
    /// # Errors
    /// [`JailError::Wire`] or [`JailError::System`] if there is nothing like that: the program was
    /// not started by a supervisor of this version.
    pub fn open() -> Result<Self, JailError> {
        let began = Instant::now();
        // A person who tries the command has no such descriptor, or something else there.
        // SAFETY: only looks.
        let there = |number| unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        for number in CONTROL..FIRST_VOLUME {
            rustix::io::fcntl_getfd(there(number))
                .map_err(JailError::errno("find descriptors 3 to 7"))?;
        }
        rustix::net::sockopt::socket_type(there(CONTROL))
            .map_err(JailError::errno("find a socket at descriptor 3"))?;
        // SAFETY: `spawn` placed these for this process, which takes each of them here alone.
        let (control, artifact, rootfs, launch) =
            unsafe { (take(CONTROL), take(ARTIFACT), take(ROOTFS), take(LAUNCH)) };
        let envelope = wire::unpack(launch)?;
        // Who joins finds them mounted.
        let count = if envelope.joins {
            0
        } else {
            envelope.volumes.len()
        };
        let last = FIRST_VOLUME + count as i32;
        // SAFETY: likewise. It is closed here: of the file nothing but the words is left to whoever takes this process over.
        let numbers = unsafe { take(NUMBERS) };
        let numbers = Numbers::map(numbers.as_fd())
            .or_else(|_| Numbers::unshared())
            .map_err(JailError::system("map the numbers"))?;
        // SAFETY: likewise, as many as there are volumes.
        let volumes = (FIRST_VOLUME..last)
            .map(|number| unsafe { take(number) })
            .collect();
        Ok(Self {
            envelope,
            control,
            artifact: artifact.into(),
            rootfs,
            volumes,
            numbers,
            opened_within: began.elapsed(),
            opened: Instant::now(),
        })
    }

    /// What the supervisor ordered.
    #[must_use]
    pub const fn launch(&self) -> &Launch {
        &self.envelope.launch
    }

    /// The compiled program.
    #[must_use]
    pub const fn artifact(&self) -> &File {
        &self.artifact
    }

    /// Tells the supervisor that this guest cannot be run, and ends.
    pub fn refuse(self, refusal: Refusal) -> ! {
        let _ = wire::report(self.control.as_fd(), &Report::Refused(refusal));
        sys::exit(125)
    }

    /// Enters the jail, for good. The process must have one thread.
    ///
    /// # Errors
    /// The step that failed, of which the supervisor has been told already: there is nothing left
    /// to do but to end with status 125.
    pub fn enter(self) -> Result<Inside, JailError> {
        let program = self.opened.elapsed();
        let began = Instant::now();
        match enter::enter(&self) {
            Ok(()) => Ok(Inside {
                laps: Laps {
                    open: self.opened_within,
                    program,
                    enter: began.elapsed(),
                },
                mounted: self.envelope.volumes,
                root: self.envelope.root,
                guest: self.envelope.launch.guest,
                tracing: self.envelope.launch.tracing,
                control: self.control,
                numbers: self.numbers,
            }),
            Err(error) => {
                let refusal = Refusal {
                    kind: kind(&error),
                    message: error.one_line(),
                };
                let _ = wire::report(self.control.as_fd(), &Report::Refused(refusal));
                Err(error)
            }
        }
    }
}

fn kind(error: &JailError) -> RefusalKind {
    use std::io::ErrorKind::PermissionDenied;
    match error {
        JailError::Mount { .. } => RefusalKind::Mount,
        JailError::Inside { source, .. } if source.kind() == PermissionDenied => {
            RefusalKind::Permission
        }
        _ => RefusalKind::Internal,
    }
}

/// A runner in the jail.
#[derive(Debug)]
pub struct Inside {
    mounted: Vec<Mounted>,
    root: Access,
    guest: GuestPlan,
    tracing: Option<Tracing>,
    control: OwnedFd,
    numbers: Numbers,
    laps: Laps,
}

impl Inside {
    /// The volumes that are there, for [`plan::preopens`].
    #[must_use]
    pub fn mounted(&self) -> &[Mounted] {
        &self.mounted
    }

    /// What the kernel allows on the rootfs, for [`plan::preopens`].
    #[must_use]
    pub const fn root(&self) -> Access {
        self.root
    }

    /// What the guest gets.
    #[must_use]
    pub const fn guest(&self) -> &GuestPlan {
        &self.guest
    }

    /// How the guest's requests are traced, if they are.
    #[must_use]
    pub const fn tracing(&self) -> Option<&Tracing> {
        self.tracing.as_ref()
    }

    /// Tells the supervisor that everything is prepared.
    ///
    /// # Errors
    /// [`JailError::System`] if the supervisor is gone.
    pub fn ready(&mut self) -> Result<(), JailError> {
        wire::report(self.control.as_fd(), &Report::Ready(self.laps))
    }

    /// Tells the supervisor, from inside, that this guest cannot be run, and ends.
    pub fn refuse(self, refusal: Refusal) -> ! {
        let _ = wire::report(self.control.as_fd(), &Report::Refused(refusal));
        sys::exit(125)
    }

    /// Waits for the word to go. What else the supervisor says before it is heard, and starts nothing.
    ///
    /// # Errors
    /// [`JailError::Silent`] if the supervisor is gone, or has dropped this container: end.
    pub fn wait_for_go(self) -> Result<Go, JailError> {
        let silent = JailError::Silent {
            who: "the supervisor",
        };
        let mut memory = None;
        let mut packet = [0; 9];
        loop {
            match rustix::net::recv(&self.control, &mut packet, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Err(silent),
                Ok((_, 1)) if packet[0] == wire::GO => break,
                Ok((_, length)) => memory = wire::memory(&packet[..length]).or(memory),
                Err(errno) => return Err(JailError::errno("wait for the word to go")(errno)),
            }
        }
        Ok(Go {
            memory,
            orders: Orders(Arc::new(self.control)),
            numbers: self.numbers,
        })
    }
}

/// What a runner has when its guest may run.
#[derive(Debug)]
pub struct Go {
    /// The bytes of memory that the guest may have, where that was changed since the plan was made.
    pub memory: Option<u64>,
    /// What remains of the wire, for later orders.
    pub orders: Orders,
    /// Where it counts.
    pub numbers: Numbers,
}

/// The runner's end of the wire while the guest runs.
#[derive(Debug)]
pub struct Orders(Arc<OwnedFd>);

impl Orders {
    /// Tells the supervisor why the guest has ended, if not by itself; its first line counts. That nobody listens is fine.
    pub fn ended(&self, account: &str) {
        let line = account.lines().next().unwrap_or_default().to_owned();
        let _ = wire::report(self.0.as_fd(), &Report::Ended(line));
    }

    /// The bytes of memory that the guest may have, if that was changed since the last call. Never waits.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let mut newest = None;
        let mut packet = [0; 9];
        while let Ok((_, length)) = rustix::net::recv(&*self.0, &mut packet, RecvFlags::DONTWAIT) {
            // The supervisor's end is closed.
            if length == 0 {
                break;
            }
            newest = wire::memory(&packet[..length]).or(newest);
        }
        newest
    }

    /// Where spans go.
    #[must_use]
    pub fn spans(&self) -> SpanSender {
        SpanSender::new(Arc::clone(&self.0))
    }
}

/// Whether the supervisor still has its end of the wire open.
pub(crate) fn supervisor_is_there(control: &OwnedFd) -> bool {
    let mut ends = [PollFd::new(control, PollFlags::empty())];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut ends, Some(&now)).is_ok() && !ends[0].revents().contains(PollFlags::HUP)
}
