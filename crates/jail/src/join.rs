//! One more process for a container that is there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::child::Child;
use crate::error::JailError;
use crate::spawn::{Namespaces, Outfit};
use crate::wire::Launch;

/// What a runner beside a container's own is made from.
#[derive(Debug)]
pub struct JoinRequest<'a> {
    /// The static binary to execute, with the one argument `run`.
    pub runner: &'a Path,
    /// What it is to become: the container's own jail, and a guest.
    pub launch: &'a Launch,
    /// The compiled program.
    pub artifact: BorrowedFd<'a>,
    /// The container's first process, a runner.
    pub beside: &'a Child,
    /// Standard input, output and error; `None` is `/dev/null`.
    pub stdio: [Option<OwnedFd>; 3],
    /// Whether standard input is a terminal, to be the one that controls the runner.
    pub terminal: bool,
    /// The container's cgroup, where it is from its first instruction on.
    pub cgroup: &'a Cgroup,
    /// Where it counts: the container's own ([`crate::page`]).
    pub numbers: Option<BorrowedFd<'a>>,
}

/// Executes a runner in the cgroup and the namespaces of a container and returns at once, like [`crate::spawn()`]. It has
/// the container's own mounts: they are joined, not made again.
///
/// On the first thread of the supervisor, like [`crate::spawn()`].
///
/// # Errors
/// [`JailError::Ended`] if the container's first process has ended, and what the kernel refuses. No process is left
/// then.
pub fn join(request: JoinRequest<'_>) -> Result<Child, JailError> {
    let JoinRequest {
        runner,
        launch,
        artifact,
        beside,
        stdio,
        terminal,
        cgroup,
        numbers,
    } = request;
    // Its number is its own as long as nobody has taken its status, which is this thread's to do.
    let (false, Some(view)) = (beside.is_gone(), beside.view()) else {
        return Err(JailError::Ended);
    };
    let (namespaces, mounts) = match Namespaces::of_container(&launch.jail, beside.pid()) {
        // A process that has ended has no namespaces any more.
        Err(JailError::Namespace { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Err(JailError::Ended);
        }
        opened => opened?,
    };
    let entrance = cgroup.further_entrance()?;
    let outfit = Outfit {
        runner,
        launch,
        artifact,
        place: mounts.as_fd(),
        joins: true,
        view,
        volumes: Vec::new(),
        stdio,
        terminal,
        numbers,
    };
    // What it would wait for has been done for the container's first process.
    outfit.execute(&namespaces, &entrance)
}
