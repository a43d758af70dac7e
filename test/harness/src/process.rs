//! Processes by their numbers, for tests that end them behind the shim's back.
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Containerd;
use crate::leftovers::{alive, arguments, parents, processes_of};
use crate::poll::until;

/// How long a killed process may take to end.
const DEADLINE: Duration = Duration::from_secs(10);
/// How the name of the supervisor's program begins; the processes that it forks keep it.
const SHIM: &str = "containerd-shim-sampan-";

/// The process above this one.
///
/// # Errors
/// When there is no such process.
pub fn parent_of(pid: u32) -> Result<u32> {
    let parent = parents()
        .into_iter()
        .find(|(child, _)| *child == pid.cast_signed())
        .map(|(_, parent)| parent.cast_unsigned());
    parent.with_context(|| format!("there is no process {pid}"))
}

/// The living processes right below this one, with their command lines.
#[must_use]
pub fn children_of(pid: u32) -> Vec<(u32, String)> {
    parents()
        .into_iter()
        .filter(|(child, parent)| *parent == pid.cast_signed() && alive(*child))
        .map(|(child, _)| (child.cast_unsigned(), arguments(child)))
        .collect()
}

/// Sends a signal; that the process has ended already is fine.
///
/// # Errors
/// When the kernel refuses.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid.cast_signed()), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("send {signal} to process {pid}")),
    }
}

/// Waits until the process has ended (reaped or not), at most ten seconds.
///
/// # Errors
/// When it has not.
pub async fn ended(pid: u32) -> Result<()> {
    let what = format!("the end of process {pid} {}", arguments(pid.cast_signed()));
    until(&what, DEADLINE, async || {
        Ok((!alive(pid.cast_signed())).then_some(()))
    })
    .await
}

impl Containerd {
    /// The supervisors of this containerd's containers.
    #[must_use]
    pub fn supervisors(&self) -> Vec<u32> {
        let ours: Vec<i32> = processes_of(self.scratch().tag())
            .into_iter()
            .filter(|pid| arguments(*pid).contains(SHIM))
            .collect();
        // What a supervisor has forked without executing, such as a pod's holder, looks like it.
        parents()
            .into_iter()
            .filter(|(pid, parent)| ours.contains(pid) && !ours.contains(parent))
            .map(|(pid, _)| pid.cast_unsigned())
            .collect()
    }

    /// The helpers that compile for this containerd's containers right now.
    #[must_use]
    pub fn compilers(&self) -> Vec<u32> {
        self.supervisors()
            .into_iter()
            .flat_map(children_of)
            .filter(|(_, arguments)| arguments.split(' ').any(|word| word == "compile"))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Waits for a helper that compiles, at most ten seconds.
    ///
    /// # Errors
    /// When there is none.
    pub async fn compiler(&self) -> Result<u32> {
        until("a compile helper", DEADLINE, async || {
            Ok(self.compilers().first().copied())
        })
        .await
    }
}
