//! A thread that lets a process and all that descend from it go step by step. The kernel takes orders for a traced
//! process from the thread that traces it alone.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The shim's command `start`.
const START: &str = "command start";
/// What it forks.
const SUPERVISOR: &str = "supervisor";
/// How often it is looked whether the gate has been reached.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is traced and counted.
#[derive(Debug, Default)]
struct State {
    /// What each process is called, once it is counted.
    names: BTreeMap<i32, &'static str>,
    steps: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    over: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Traces until it is told to end.
pub(super) struct Tracer {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

impl Tracer {
    /// Waits for the process that comes to the gate at `fifo`, takes it, and lets it go on.
    pub(super) fn at(fifo: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, fifo) = (shared.clone(), fifo.to_owned());
        let thread = std::thread::spawn(move || trace(&theirs, &fifo));
        Self { shared, thread }
    }

    /// Steps so far, by the name of the process: all of one name together.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state().steps.clone()
    }

    /// Waits for the end of all that is traced.
    pub(super) fn end(self) -> Result<()> {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that traces panicked"))?
    }
}

fn trace(shared: &Shared, fifo: &Path) -> Result<()> {
    let Some(first) = arrival(shared, fifo)? else {
        return Ok(());
    };
    let options = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).with_context(|| format!("trace process {first}"))?;
    let mut gate = std::fs::OpenOptions::new()
        .write(true)
        .open(fifo)
        .with_context(|| format!("open {fifo:?}"))?;
    gate.write_all(b"\n")
        .with_context(|| format!("write {fifo:?}"))?;
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let status = match waitpid(None::<Pid>, Some(flags)) {
            Ok(status) => status,
            // Nobody is left.
            Err(Errno::ECHILD) => return Ok(()),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("wait for what is traced"),
        };
        match go_on(shared, status) {
            // It was killed while it stood.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("let a traced process go on"),
        }
    }
}

/// The process that waits at the gate; none if nobody is to come any more.
fn arrival(shared: &Shared, fifo: &Path) -> Result<Option<Pid>> {
    let mut file = fifo.as_os_str().to_owned();
    file.push(".pid");
    let file = PathBuf::from(file);
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            std::fs::remove_file(&file).with_context(|| format!("remove {file:?}"))?;
            let pid = text.trim().parse().context("read the gate's process id")?;
            return Ok(Some(Pid::from_raw(pid)));
        }
        if shared.over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
}

fn go_on(shared: &Shared, status: WaitStatus) -> nix::Result<()> {
    match status {
        WaitStatus::PtraceEvent(pid, signal, event) => {
            match event {
                libc::PTRACE_EVENT_EXEC => executed(shared, pid),
                libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                    born(shared, pid)
                }
                libc::PTRACE_EVENT_STOP if signal != Signal::SIGTRAP => {
                    // A stop that somebody asked for: it stands until somebody else lets it go on.
                    return ptrace::cont(pid, None::<Signal>);
                }
                _ => {}
            }
            ptrace::step(pid, None::<Signal>)
        }
        WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
            let mut state = shared.state();
            if let Some(name) = state.names.get(&pid.as_raw()).copied() {
                *state.steps.entry(name).or_default() += 1;
            }
            drop(state);
            ptrace::step(pid, None::<Signal>)
        }
        WaitStatus::Stopped(pid, signal) => ptrace::step(pid, signal),
        _ => Ok(()),
    }
}

/// From here on it is counted under the name of what it has become.
fn executed(shared: &Shared, pid: Pid) {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    let name = if file == "sampan-runner" {
        "runner"
    } else if file.starts_with("containerd-shim") {
        START
    } else {
        "other program"
    };
    shared.state().names.insert(pid.as_raw(), name);
}

/// A child or a thread of `parent`.
fn born(shared: &Shared, parent: Pid) {
    let child = ptrace::getevent(parent).ok();
    let Some(child) = child.and_then(|child| i32::try_from(child).ok()) else {
        return;
    };
    let mut state = shared.state();
    let name = match state.names.get(&parent.as_raw()).copied() {
        Some(START) => SUPERVISOR,
        Some(SUPERVISOR) => "child of the supervisor",
        Some(other) => other,
        None => return,
    };
    state.names.entry(child).or_insert(name);
}
