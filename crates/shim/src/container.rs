//! A container's life: created, running, stopped; and what each request may do in which state.
//!
//! ```text
//! Create -> Created -- Start --> Running -- exit --> Stopped -- Delete --> gone
//!              \-------------- exit or Delete ----------^
//! ```

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jail::{Cgroup, JailError, Rootfs};
use plan::ContainerId;
use plan::numbers::Labels;
use tracing::{Instrument as _, debug_span};

use crate::exec::Exec;
use crate::failure::{Failure, Kind, Outcome, of_jail};
use crate::launch::Beside;
use crate::native::Native;
use crate::places::{Place, Places};
use crate::pod::PodFiles;
use crate::process::{Exit, Phase, Process};
use crate::record::RunDir;
use crate::trace::Trace;

/// A container that was created.
pub(crate) struct Container {
    parts: Parts,
    /// Its first process.
    pub(crate) main: Process,
    /// What was executed beside it, by the id that containerd gave it.
    execs: Mutex<HashMap<String, Arc<Exec>>>,
    /// Who may execute something beside it; each process holds one.
    places: Places,
    /// Those of them that are on their way into the cgroup.
    entering: Places,
    paused: AtomicBool,
    /// Whether SIGTERM came.
    asked_to_end: AtomicBool,
    /// How many kills for want of memory containerd has heard of.
    oom_kills: AtomicU64,
    /// The bytes that guests may have since Update; before, what the plan says.
    guest_memory: Mutex<Option<u64>>,
}

/// What a container is made of; the same from Create to Delete.
pub(crate) struct Parts {
    pub(crate) id: ContainerId,
    /// The bundle's directory, for containerd's State.
    pub(crate) bundle: String,
    pub(crate) cgroup: Cgroup,
    pub(crate) runs: Runs,
    /// Its directory on disk; removed by Delete.
    pub(crate) dir: RunDir,
    /// Kept for its clean-up, where it had to be mounted in the host's view.
    pub(crate) rootfs: Option<Rootfs>,
    pub(crate) created: SystemTime,
    /// What people call it.
    pub(crate) labels: Labels,
    /// Its creation, where that is traced.
    pub(crate) trace: Trace,
}

impl Deref for Container {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What runs in it.
pub(crate) enum Runs {
    /// A runner with a wasm guest, which waits for the word to go; and what another one needs.
    Guest(Box<Beside>),
    /// The pod's holder of namespaces.
    Holder,
    /// A native program, under libcontainer.
    Native(Native),
}

impl Container {
    pub(crate) fn new(parts: Parts, main: Process) -> Self {
        let places = match &parts.runs {
            Runs::Guest(beside) => Places::new(beside.launch.guest.limits.execs),
            // As with runc's shim: the cgroup alone counts.
            Runs::Holder | Runs::Native(_) => Places::new(u32::MAX),
        };
        Self {
            parts,
            main,
            execs: Mutex::default(),
            places,
            entering: Places::new(u32::MAX),
            paused: AtomicBool::new(false),
            asked_to_end: AtomicBool::new(false),
            oom_kills: AtomicU64::new(0),
            guest_memory: Mutex::default(),
        }
    }

    /// Start: lets the program run. Valid in Created alone.
    pub(crate) async fn start(&self) -> Outcome<()> {
        self.main.can_start()?;
        match (&self.runs, self.main.child()) {
            (Runs::Guest(_), Some(child)) => child.go().map_err(|error| {
                Failure::new(
                    Kind::Precondition,
                    format!("start container {}: {error}", self.id),
                )
            })?,
            (Runs::Native(native), _) => native.start().await?,
            (Runs::Holder | Runs::Guest(_), _) => {}
        }
        self.main.begun();
        Ok(())
    }

    /// Kill: valid until the first process has ended.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> Outcome<()> {
        if all {
            self.main.not_finished()?;
            self.cgroup.kill_all(signal).map_err(|error| {
                Failure::new(
                    Kind::Internal,
                    format!("send signal {signal} to container {}: {error}", self.id),
                )
            })?;
        } else {
            self.main.kill(signal)?;
        }
        if signal == nix::libc::SIGKILL && self.is_paused() {
            // On cgroup v1 what is frozen does not even die.
            self.resume()?;
        }
        Ok(())
    }

    /// Whether it was asked to end before; from now on it was.
    pub(crate) fn was_asked_to_end(&self) -> bool {
        self.asked_to_end.swap(true, Ordering::Relaxed)
    }

    /// Whether its processes stand still.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Pause and Resume: valid in Running; asking for what is already so is an error, as with runc.
    pub(crate) async fn pause(&self, paused: bool) -> Outcome<()> {
        if self.main.phase() != Phase::Running {
            return Err(self.main.in_wrong_phase("is not running"));
        }
        if self.is_paused() == paused {
            return Err(self.main.in_wrong_phase(if paused {
                "is paused already"
            } else {
                "is not paused"
            }));
        }
        if paused {
            let frozen = self.cgroup.frozen().await;
            frozen.map_err(|error| self.cannot("pause", &error))?;
            self.paused.store(true, Ordering::Relaxed);
            Ok(())
        } else {
            self.resume()
        }
    }

    fn resume(&self) -> Outcome<()> {
        let thawed = self.cgroup.thaw();
        thawed.map_err(|error| self.cannot("resume", &error))?;
        self.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn cannot(&self, what: &str, error: &JailError) -> Failure {
        Failure::new(
            Kind::Internal,
            format!("{what} container {}: {}", self.id, error.one_line()),
        )
    }

    /// How many kills for want of memory there were that nobody has heard of; they count as told then.
    pub(crate) fn new_oom_kills(&self, kills: u64) -> u64 {
        kills.saturating_sub(self.oom_kills.fetch_max(kills, Ordering::Relaxed))
    }

    /// The bytes that each of its guests may have from now on: those that run, and those that will be executed.
    pub(crate) fn set_guest_memory(&self, bytes: u64) -> Result<(), JailError> {
        *self.guest_memory() = Some(bytes);
        let execs = self.all_execs();
        let processes = execs.iter().map(|exec| &exec.process);
        for process in processes.chain([&self.main]) {
            if let Some(child) = process.child() {
                child.set_memory(bytes)?;
            }
        }
        Ok(())
    }

    /// What Update said of it.
    pub(crate) fn guest_memory(&self) -> MutexGuard<'_, Option<u64>> {
        self.guest_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first process, takes its status, and ends what it left: its streams, what was executed beside it,
    /// and the processes that a native program may have had.
    pub(crate) async fn watch(&self) -> Exit {
        let exit = self.main.reap().await;
        if let Runs::Native(_) = self.runs {
            // Where the pid namespace is shared, the kernel does not end them.
            let _ = self.cgroup.kill_all(nix::libc::SIGKILL);
        }
        for exec in self.all_execs() {
            exec.end();
        }
        self.main.close().await;
        exit
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        // The map is whole after every statement: a panic elsewhere does not spoil it.
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count_execs(&self) -> usize {
        self.execs().len()
    }

    pub(crate) fn all_execs(&self) -> Vec<Arc<Exec>> {
        self.execs().values().cloned().collect()
    }

    /// A place for one more process beside the first one, which is free again when it is dropped.
    pub(crate) fn place(&self) -> Outcome<Place> {
        self.places.take().ok_or_else(|| {
            Failure::new(
                Kind::Exhausted,
                format!(
                    "container {}: {} processes are executed in it, and more are not allowed (`max-execs`)",
                    self.id, self.places.all
                ),
            )
        })
    }

    /// Lets one more process go into the cgroup; it is on its way until this is dropped. Refused where a limit on
    /// processes, the cgroup's own or of one above, is reached: the kernel would not refuse it everywhere
    /// ([`Cgroup::crowd`]).
    pub(crate) fn enter(&self) -> Outcome<Option<Place>> {
        let crowd = self.cgroup.crowd().map_err(|error| of_jail(&error))?;
        // Those that are on their way are not counted there yet.
        let there = 1 + self
            .all_execs()
            .iter()
            .filter(|exec| exec.is_there())
            .count();
        let known = there as u64 + u64::from(self.entering.taken());
        match crowd {
            Some(crowd) if crowd.tasks.max(known) >= crowd.most => Err(Failure::new(
                Kind::Exhausted,
                format!(
                    "container {}: no process can be added to the {} that {} allows",
                    self.id,
                    crowd.most,
                    crowd.at.join("pids.max").display()
                ),
            )),
            _ => Ok(self.entering.take()),
        }
    }

    /// Exec: adds a process to be started. Valid until the container has stopped.
    pub(crate) fn add(&self, exec: Exec) -> Outcome<()> {
        if let Phase::Stopped(_) = self.main.phase() {
            return Err(self
                .main
                .in_wrong_phase("has stopped: nothing can be executed in it"));
        }
        let mut execs = self.execs();
        if execs.contains_key(&exec.id) {
            return Err(Failure::new(
                Kind::Exists,
                format!("container {} has a process {} already", self.id, exec.id),
            ));
        }
        execs.insert(exec.id.clone(), Arc::new(exec));
        Ok(())
    }

    /// The process of that id.
    pub(crate) fn exec(&self, id: &str) -> Outcome<Arc<Exec>> {
        self.execs().get(id).cloned().ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                format!("container {} has no process {id}", self.id),
            )
        })
    }

    /// Delete of such a process.
    pub(crate) fn forget(&self, id: &str) {
        self.execs().remove(id);
    }

    /// Delete: valid in Created (the process is killed first) and Stopped. Removes everything
    /// that the container left on the machine.
    pub(crate) async fn delete(&self) -> Outcome<Exit> {
        match self.main.phase() {
            Phase::Running => {
                return Err(self
                    .main
                    .in_wrong_phase("is running: kill it before deleting it"));
            }
            Phase::Created => self.kill(nix::libc::SIGKILL, false)?,
            Phase::Stopped(_) => {}
        }
        let exit = self.main.wait().await;
        for exec in self.all_execs() {
            exec.end();
            exec.process.wait().await;
        }
        if let Runs::Native(native) = &self.runs {
            native.delete().await?;
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(
                Kind::Internal,
                format!("delete container {}: {what}: {error}", self.id),
            )
        };
        self.cgroup
            .removed()
            .instrument(debug_span!("cgroup"))
            .await
            .map_err(|error| failed("remove its cgroup", &error.one_line()))?;
        if let Some(rootfs) = &self.rootfs {
            debug_span!("unmount")
                .in_scope(|| rootfs.unmount())
                .map_err(|error| failed("unmount its rootfs", &error.one_line()))?;
        }
        if let Runs::Holder = self.runs {
            PodFiles::of(&self.dir)
                .release()
                .map_err(|error| failed("unmount its shared memory", &error.one_line()))?;
        }
        debug_span!("record")
            .in_scope(|| self.dir.remove())
            .map_err(|error| failed("remove its directory", &error))?;
        Ok(exit)
    }
}
