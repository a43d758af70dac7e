//! A container's life: created, running, stopped; and what each request may do in which state.
//!
//! ```text
//! Create -> Created -- Start --> Running -- exit --> Stopped -- Delete --> gone
//!              \-------------- exit or Delete ----------^
//! ```

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use jail::{Cgroup, Child, Rootfs};
use plan::ContainerId;
use tokio::sync::watch;

use crate::events::timestamp;
use crate::failure::{Failure, Kind, Outcome};
use crate::native::Native;
use crate::record::RunDir;
use crate::stdio::{Held, Uris};

/// A container that was created.
pub(crate) struct Container {
    parts: Parts,
    held: Mutex<Held>,
    phase: watch::Sender<Phase>,
    paused: AtomicBool,
    /// How many kills for want of memory containerd has heard of.
    oom_kills: AtomicU64,
    /// Held while a start or an exit is carried out and published: events keep their order.
    turn: tokio::sync::Mutex<()>,
}

/// What a container is made of; the same from Create to Delete.
pub(crate) struct Parts {
    pub(crate) id: ContainerId,
    /// The bundle's directory, for containerd's State.
    pub(crate) bundle: String,
    pub(crate) uris: Uris,
    pub(crate) cgroup: Cgroup,
    pub(crate) process: Process,
    /// Its directory on disk; removed by Delete.
    pub(crate) dir: RunDir,
    /// Kept for its clean-up, where it had to be mounted in the host's view.
    pub(crate) rootfs: Option<Rootfs>,
}

impl Deref for Container {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What runs in it.
pub(crate) enum Process {
    /// A runner with a wasm guest, which waits for the word to go.
    Guest(Child),
    /// The pod's holder of namespaces.
    Holder(Child),
    /// A native program, under libcontainer.
    Native(Child, Native),
}

impl Process {
    fn child(&self) -> &Child {
        match self {
            Self::Guest(child) | Self::Holder(child) | Self::Native(child, _) => child,
        }
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything is prepared; nothing of the guest has run.
    Created,
    /// Started.
    Running,
    /// Its process has ended.
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
    pub(crate) fn time(&self) -> MessageField<Timestamp> {
        MessageField::some(timestamp(self.at))
    }
}

impl Container {
    pub(crate) fn new(parts: Parts, held: Held) -> Self {
        Self {
            parts,
            held: Mutex::new(held),
            phase: watch::Sender::new(Phase::Created),
            paused: AtomicBool::new(false),
            oom_kills: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.process.child().pid()).unwrap_or(0)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Start: lets the program run. Valid in Created alone.
    pub(crate) async fn start(&self) -> Outcome<()> {
        match self.phase() {
            Phase::Created => {}
            Phase::Running => return Err(self.in_wrong_phase("was started already")),
            Phase::Stopped(_) => return Err(self.in_wrong_phase("has ended before it was started")),
        }
        match &self.process {
            Process::Guest(child) => child.go().map_err(|error| {
                Failure::new(
                    Kind::Precondition,
                    format!("start container {}: {error}", self.id),
                )
            })?,
            Process::Holder(_) => {}
            Process::Native(_, native) => native.start().await?,
        }
        self.phase.send_if_modified(|phase| {
            let created = *phase == Phase::Created;
            if created {
                *phase = Phase::Running;
            }
            created
        });
        Ok(())
    }

    /// Kill: valid until the process has ended.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> Outcome<()> {
        if let Phase::Stopped(_) = self.phase() {
            // What runc's shim answers, and containerd counts on.
            return Err(Failure::new(
                Kind::NotFound,
                format!("process of container {} has already finished", self.id),
            ));
        }
        let sent = if all {
            self.cgroup.kill_all(signal)
        } else {
            self.process.child().kill(signal)
        };
        sent.map_err(|error| {
            Failure::new(
                Kind::Internal,
                format!("send signal {signal} to container {}: {error}", self.id),
            )
        })?;
        if signal == nix::libc::SIGKILL && self.is_paused() {
            // On cgroup v1 what is frozen does not even die.
            self.set_paused(false)?;
        }
        Ok(())
    }

    /// Whether its processes stand still.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Pause and Resume: valid in Running; asking for what is already so is an error, as with runc.
    pub(crate) fn pause(&self, paused: bool) -> Outcome<()> {
        if self.phase() != Phase::Running {
            return Err(self.in_wrong_phase("is not running"));
        }
        if self.is_paused() == paused {
            return Err(self.in_wrong_phase(if paused {
                "is paused already"
            } else {
                "is not paused"
            }));
        }
        self.set_paused(paused)
    }

    fn set_paused(&self, paused: bool) -> Outcome<()> {
        let set = if paused {
            self.cgroup.freeze()
        } else {
            self.cgroup.thaw()
        };
        set.map_err(|error| {
            let what = if paused { "pause" } else { "resume" };
            Failure::new(
                Kind::Internal,
                format!("{what} container {}: {}", self.id, error.one_line()),
            )
        })?;
        self.paused.store(paused, Ordering::Relaxed);
        Ok(())
    }

    /// Whether there were kills for want of memory that nobody has heard of; they count as told then.
    pub(crate) fn new_oom_kills(&self, kills: u64) -> bool {
        self.oom_kills.fetch_max(kills, Ordering::Relaxed) < kills
    }

    /// Wait: returns when the process has ended, at once if it has.
    pub(crate) async fn wait(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        loop {
            if let Phase::Stopped(exit) = *phases.borrow_and_update() {
                return exit;
            }
            if phases.changed().await.is_err() {
                // Only with the container itself, which this borrows.
                return Exit {
                    status: 255,
                    at: SystemTime::now(),
                };
            }
        }
    }

    /// Waits for the process, takes its status, and ends what it left: its streams, and the
    /// processes that a native program may have had beside it.
    pub(crate) async fn watch(&self) -> Exit {
        let child = self.process.child();
        let status = loop {
            let ready = jail::readable(child.pidfd()).await;
            match (child.reap(), ready) {
                (Ok(Some(status)), _) => break status,
                (Ok(None), Ok(())) => {}
                (Err(_), _) | (_, Err(_)) => break LOST,
            }
        };
        if let Process::Native(..) = self.process {
            // Where the pid namespace is shared, the kernel does not end them.
            let _ = self.cgroup.kill_all(nix::libc::SIGKILL);
        }
        let exit = Exit {
            status: u32::try_from(status).unwrap_or(LOST as u32),
            at: SystemTime::now(),
        };
        self.held().close();
        exit
    }

    /// Tells everybody who waits that the process has ended.
    pub(crate) fn stopped(&self, exit: Exit) {
        self.phase.send_replace(Phase::Stopped(exit));
    }

    /// Delete: valid in Created (the process is killed first) and Stopped. Removes everything
    /// that the container left on the machine.
    pub(crate) async fn delete(&self) -> Outcome<Exit> {
        match self.phase() {
            Phase::Running => {
                return Err(self.in_wrong_phase("is running: kill it before deleting it"));
            }
            Phase::Created => self.kill(nix::libc::SIGKILL, false)?,
            Phase::Stopped(_) => {}
        }
        let exit = self.wait().await;
        if let Process::Native(_, native) = &self.process {
            native.delete().await?;
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(
                Kind::Internal,
                format!("delete container {}: {what}: {error}", self.id),
            )
        };
        self.cgroup
            .remove()
            .map_err(|error| failed("remove its cgroup", &error.one_line()))?;
        if let Some(rootfs) = &self.rootfs {
            rootfs
                .unmount()
                .map_err(|error| failed("unmount its rootfs", &error.one_line()))?;
        }
        self.dir
            .remove()
            .map_err(|error| failed("remove its directory", &error))?;
        Ok(exit)
    }

    fn in_wrong_phase(&self, what: &str) -> Failure {
        Failure::new(Kind::Precondition, format!("container {} {what}", self.id))
    }
}

/// The status of a process whose end could not be learnt; what containerd itself uses then.
const LOST: i32 = 255;
