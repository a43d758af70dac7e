//! The running daemon: a child of the test, ended with it, or one that is started again whenever it ends, as systemd
//! does on a node.
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How long one that has ended stays away, as a unit's `RestartSec`.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) enum Daemon {
    /// Ends once and for all.
    Once(Child),
    /// Comes back.
    Kept(Keeper),
}

impl Daemon {
    /// Its process id, or that of its last process.
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Once(child) => child.id(),
            Self::Kept(keeper) => keeper.state().pid,
        }
    }

    /// How it has ended, if it has for good.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Once(child) => child.try_wait(),
            Self::Kept(keeper) => Ok(keeper.state().last),
        }
    }

    /// Sends a signal, after which it does not come back.
    pub(super) fn end(&self, signal: Signal) -> Result<()> {
        let sent = match self {
            Self::Once(child) => send(child.id(), signal),
            Self::Kept(keeper) => {
                // Under the lock, so that the number is its own: it is reaped under the lock too.
                let mut state = keeper.state();
                state.over = true;
                keeper.shared.1.notify_all();
                send(state.pid, signal)
            }
        };
        sent.with_context(|| format!("send {signal} to containerd"))
    }

    /// From now on one that comes back does not do so while a file contains a text; `None`: it does.
    pub(super) fn refuse(&self, when: Option<(PathBuf, String)>) {
        if let Self::Kept(keeper) = self {
            keeper.state().refuses = when;
        }
    }

    /// Kills it and waits for its end.
    pub(super) fn kill(self) -> Result<()> {
        self.end(Signal::SIGKILL)?;
        match self {
            Self::Once(mut child) => drop(child.wait().context("wait for containerd")?),
            Self::Kept(keeper) => drop(keeper.thread.join()),
        }
        Ok(())
    }
}

/// Starts a daemon again when it has ended.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    pid: u32,
    /// Nothing is started any more.
    over: bool,
    /// How the last one ended.
    last: Option<ExitStatus>,
    /// Nothing is started while this file contains this text.
    refuses: Option<(PathBuf, String)>,
}

impl State {
    fn refused(&self) -> bool {
        self.refuses.as_ref().is_some_and(|(file, text)| {
            fs::read_to_string(file).is_ok_and(|content| content.contains(text))
        })
    }
}

impl Keeper {
    /// Keeps what runs already; `spawn` makes the next one.
    pub(super) fn new(
        mut child: Child,
        spawn: impl Fn() -> Result<Child> + Send + 'static,
    ) -> Self {
        let state = State {
            pid: child.id(),
            over: false,
            last: None,
            refuses: None,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let ours = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            loop {
                // It stays unreaped until the lock is held.
                let pid = Pid::from_raw(child.id().cast_signed());
                while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                    == Err(Errno::EINTR)
                {}
                let mut state = lock(&ours.0);
                let status = child.wait().ok();
                while !state.over {
                    let waited = ours.1.wait_timeout_while(state, PAUSE, |state| !state.over);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    if !state.refused() {
                        break;
                    }
                }
                let next = if state.over { None } else { spawn().ok() };
                let Some(next) = next else {
                    state.over = true;
                    state.last = status;
                    return;
                };
                state.pid = next.id();
                child = next;
            }
        });
        Self { shared, thread }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.0)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    match kill(Pid::from_raw(pid.cast_signed()), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}
