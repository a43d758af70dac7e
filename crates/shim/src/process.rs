//! A process of a container, its first one or one that was executed beside it: created, running, stopped; with its
//! streams and its exit.
//!
//! ```text
//! Created -- begun --> Running -- exit --> Stopped
//!     \----------- exit, or never begun ----^
//! ```

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use jail::{Child, Report};
use tokio::sync::watch;

use crate::events::timestamp;
use crate::failure::{Failure, Kind, Outcome};
use crate::stdio::{Held, Streams};

/// A process and what belongs to it.
pub(crate) struct Process {
    /// As messages call it: `container x` or `process y of container x`.
    name: String,
    pub(crate) streams: Streams,
    /// Empty until there is a process: one that is executed is made by Start.
    child: OnceLock<Child>,
    io: Mutex<Io>,
    phase: watch::Sender<Phase>,
    /// Held while a start or an exit is carried out and published: events keep their order.
    turn: tokio::sync::Mutex<()>,
}

/// The supervisor's ends of the streams, and what was asked of them before there were any.
#[derive(Default)]
struct Io {
    held: Held,
    stdin_closed: bool,
    size: Option<(u16, u16)>,
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything is prepared; nothing of the guest has run.
    Created,
    /// Started.
    Running,
    /// It has ended, or could not be started.
    Stopped(Exit),
}

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code, or 128 and the number of the signal that killed it.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

impl Exit {
    fn now(status: i32) -> Self {
        Self {
            status: u32::try_from(status).unwrap_or(LOST as u32),
            at: SystemTime::now(),
        }
    }

    pub(crate) fn time(&self) -> MessageField<Timestamp> {
        MessageField::some(timestamp(self.at))
    }
}

/// The status of a process whose end could not be learnt, or that never was; what containerd itself uses then.
const LOST: i32 = 255;

impl Process {
    /// One that is to be made. `size` is what its terminal has at first.
    pub(crate) fn new(name: String, streams: Streams, size: Option<(u16, u16)>) -> Self {
        Self {
            name,
            streams,
            child: OnceLock::new(),
            io: Mutex::new(Io {
                size,
                ..Io::default()
            }),
            phase: watch::Sender::new(Phase::Created),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// It is there. What was asked of its streams before is done now.
    pub(crate) fn made(&self, child: Child, held: Held) {
        let mut io = self.io();
        io.held = held;
        if io.stdin_closed {
            io.held.close_stdin();
        }
        if let Some((columns, rows)) = io.size {
            // The size of a terminal is no reason not to run.
            let _ = io.held.resize(columns, rows);
        }
        // A second one cannot be: Start is refused then.
        let _ = self.child.set(child);
    }

    pub(crate) fn child(&self) -> Option<&Child> {
        self.child.get()
    }

    /// Its number; 0 while there is none.
    pub(crate) fn pid(&self) -> u32 {
        self.child()
            .and_then(|child| u32::try_from(child.pid()).ok())
            .unwrap_or(0)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn io(&self) -> MutexGuard<'_, Io> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a start in any phase but Created.
    pub(crate) fn can_start(&self) -> Outcome<()> {
        match self.phase() {
            Phase::Created => Ok(()),
            Phase::Running => Err(self.in_wrong_phase("was started already")),
            Phase::Stopped(_) => Err(self.in_wrong_phase("has ended before it was started")),
        }
    }

    /// It runs, unless it has ended meanwhile.
    pub(crate) fn begun(&self) {
        self.phase.send_if_modified(|phase| {
            let created = *phase == Phase::Created;
            if created {
                *phase = Phase::Running;
            }
            created
        });
    }

    /// It will never run: whoever waits for it is told.
    pub(crate) fn given_up(&self) {
        self.stopped(Exit::now(LOST));
    }

    /// Refuses in Stopped, as runc's shim does and containerd counts on.
    pub(crate) fn not_finished(&self) -> Outcome<()> {
        match self.phase() {
            Phase::Stopped(_) => Err(Failure::new(
                Kind::NotFound,
                format!("{} has already finished", self.name),
            )),
            Phase::Created | Phase::Running => Ok(()),
        }
    }

    /// Kill: valid as soon as there is a process, until it has ended.
    pub(crate) fn kill(&self, signal: i32) -> Outcome<()> {
        self.not_finished()?;
        let Some(child) = self.child() else {
            return Err(self.in_wrong_phase("was not started"));
        };
        child.kill(signal).map_err(|error| {
            Failure::new(
                Kind::Internal,
                format!("send signal {signal} to {}: {error}", self.name),
            )
        })
    }

    /// Wait: returns when the process has ended, at once if it has.
    pub(crate) async fn wait(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        loop {
            if let Phase::Stopped(exit) = *phases.borrow_and_update() {
                return exit;
            }
            if phases.changed().await.is_err() {
                // Only with the process itself, which this borrows.
                return Exit::now(LOST);
            }
        }
    }

    /// Waits for the process and takes its status.
    pub(crate) async fn reap(&self) -> Exit {
        let Some(child) = self.child() else {
            return Exit::now(LOST);
        };
        loop {
            let ready = jail::readable(child.pidfd()).await;
            match (child.reap(), ready) {
                (Ok(Some(status)), _) => return Exit::now(status),
                (Ok(None), Ok(())) => {}
                (Err(_), _) | (_, Err(_)) => return Exit::now(LOST),
            }
        }
    }

    /// Why a runner's guest has ended, by what the runner said of it last. Nothing of it is to be believed further than
    /// that this container says so.
    pub(crate) fn account(&self) -> Option<String> {
        match self.child()?.read_report() {
            Ok(Some(Report::Ended(account))) => Some(account),
            _ => None,
        }
    }

    /// Its readers see all that it wrote, and the end.
    pub(crate) async fn close(&self) {
        let held = std::mem::take(&mut self.io().held);
        held.close().await;
    }

    /// Tells everybody who waits that the process has ended.
    pub(crate) fn stopped(&self, exit: Exit) {
        self.phase.send_replace(Phase::Stopped(exit));
    }

    /// CloseIO: also before Start.
    pub(crate) fn close_stdin(&self) {
        let mut io = self.io();
        io.stdin_closed = true;
        io.held.close_stdin();
    }

    /// ResizePty: also before Start. Where there is no terminal nothing happens, as with runc's shim.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Outcome<()> {
        let mut io = self.io();
        io.size = Some((columns, rows));
        io.held.resize(columns, rows)
    }

    /// Columns and rows that its terminal is to have.
    pub(crate) fn size(&self) -> Option<(u16, u16)> {
        self.io().size
    }

    pub(crate) fn in_wrong_phase(&self, what: &str) -> Failure {
        Failure::new(Kind::Precondition, format!("{} {what}", self.name))
    }
}
