//! The bounded process that compiles guest bytes.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::cgroup::Entrance;
use crate::child::Child;
use crate::daemon::one_thread;
use crate::error::JailError;
use crate::holder::leave_root;
use crate::spawn::{
    Execution, Namespaces, Placed, Prepared, enter_and_execute, open_program, start, take,
    wire_pair,
};
use crate::step::Step;
use crate::sys;
use crate::{privileges, seccomp, volumes};

/// What a compilation is made from.
#[derive(Debug)]
pub struct CompileRequest<'a> {
    /// The static binary to execute, with the one argument `compile`.
    pub runner: &'a Path,
    /// The guest bytes; descriptor 3 there.
    pub source: BorrowedFd<'a>,
    /// Where the artifact is written to; descriptor 4 there.
    pub target: BorrowedFd<'a>,
    /// Where the reason of a failure is written to, one line.
    pub stderr: OwnedFd,
    /// Most bytes of address space.
    pub memory: u64,
    /// Longest time; SIGALRM (status 142) ends the process then, whoever still watches it.
    pub time: Duration,
}

/// The bounds of a process that computes for others.
pub(crate) struct Limits {
    pub(crate) memory: u64,
    pub(crate) seconds: u32,
    pub(crate) bound: bool,
}

/// Least priority but one: compiling must not disturb the guests that run.
const NICE: i32 = 10;

/// `RLIMIT_AS` and `RLIMIT_CORE` of `<asm-generic/resource.h>`; libc has another type for them in each C library.
const ADDRESS_SPACE: u32 = 9;
const CORE: u32 = 4;

impl Limits {
    /// Between clone and exec; all of it outlives the exec.
    pub(crate) fn apply(&self) -> std::io::Result<()> {
        sys::set_rlimit(ADDRESS_SPACE, self.memory, self.memory)?;
        sys::set_rlimit(CORE, 0, 0)?;
        // SAFETY: numbers alone.
        unsafe {
            libc::alarm(self.seconds);
            libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        }
        if self.bound {
            privileges::die_with_the_parent()?;
        }
        Ok(())
    }
}

/// Executes `runner compile` with bounds on memory and time, in namespaces of its own: it sees no
/// network and, once it is in its jail ([`enter_compile_jail`]), no file but the two.
///
/// Its status by [`Child::reap`]: 0 is success. It has no wire: wait for the [`Child::pidfd`].
///
/// # Errors
/// What the kernel refuses. No process is left then.
pub fn spawn_compiler(request: CompileRequest<'_>) -> Result<Child, JailError> {
    let program =
        CString::new(request.runner.as_os_str().as_bytes()).map_err(|_| JailError::Nul {
            what: "the runner's path",
        })?;
    let argv = [program.as_ptr(), c"compile".as_ptr(), std::ptr::null()];
    // No pid namespace: its first process would not notice the alarm.
    let namespaces = Namespaces::of_new(
        libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS,
    );
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(JailError::errno("open /dev/null"))?;
    let (ours, theirs) = wire_pair(6)?;
    let mut placed = Placed::new(6);
    placed.add(null.as_fd(), 0)?;
    placed.add(null.as_fd(), 1)?;
    placed.add(request.stderr.as_fd(), 2)?;
    placed.add(request.source, 3)?;
    placed.add(request.target, 4)?;
    placed.add(volumes::nothing()?.as_fd(), EMPTY_ROOT)?;
    let seconds = u32::try_from(request.time.as_secs().max(1)).unwrap_or(u32::MAX);
    let limits = Limits {
        memory: request.memory,
        seconds,
        bound: sys::on_main_thread(),
    };
    let file = open_program(request.runner, 6)?;
    let execution = Execution {
        program: &program,
        file: file.as_fd(),
        argv: &argv,
        terminal: false,
        limits: Some(limits),
    };
    let prepared = Prepared {
        namespaces: &namespaces,
        entrance: &Entrance::None,
        control: theirs.as_raw_fd(),
    };
    start(&prepared, ours, None, |_| {
        enter_and_execute(&prepared, &placed, &execution)
    })
}

/// Where the helper finds its empty root.
const EMPTY_ROOT: i32 = 5;

/// Takes everything away from the compile helper but its two files, memory and processors. To be
/// called first in `compile`, by a process that [`spawn_compiler`] executed.
///
/// # Errors
/// The step that failed.
pub fn enter_compile_jail() -> Result<(), JailError> {
    one_thread()?;
    let step = |step: Step| move |error: std::io::Error| JailError::step(step, &error);
    sys::make_mounts_private().map_err(step(Step::CutMounts))?;
    leave_root(EMPTY_ROOT).map_err(step(Step::EmptyRoot))?;
    // SAFETY: `spawn_compiler` placed it for this process, which takes it here alone.
    drop(unsafe { take(EMPTY_ROOT) });
    let bound = privileges::dies_with_the_parent();
    let filter = seccomp::compiler();
    privileges::close_the_ways_back()
        .and_then(|()| privileges::become_user(NOBODY, NOBODY, &[]))
        .map_err(step(Step::Privileges))?;
    // The change of user has undone it. A shim that ends in between leaves a process that the
    // alarm ends.
    if bound {
        privileges::die_with_the_parent().map_err(step(Step::Privileges))?;
    }
    filter.load().map_err(step(Step::Filter))
}

/// The kernel's overflow user: owns nothing.
const NOBODY: u32 = 65534;
