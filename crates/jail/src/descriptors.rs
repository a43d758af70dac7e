//! How many descriptors the supervisor may have open. One that serves many pods needs more than the 1024 that a process
//! has by habit, for programs that keep descriptors in a `fd_set`; what is executed in a container may be such a program.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::JailError;

/// The limit (`RLIMIT_NOFILE`) that this process was executed with, once it has another.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// How many descriptors this process may give itself: the hard limit.
#[must_use]
pub fn most_descriptors() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the soft limit on open descriptors to the hard one, and returns it. What this crate executes in a container has
/// the former one.
///
/// # Errors
/// [`JailError::System`].
pub fn raise_descriptor_limit() -> Result<u64, JailError> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(JailError::errno("raise the limit on open descriptors"))?;
    // The first one counts.
    let _ = BEFORE.set(before);
    Ok(most_descriptors())
}

/// Gives this process, which was forked from one that has raised it, the former limit. Nothing here allocates.
pub(crate) fn former_limit() -> io::Result<()> {
    match BEFORE.get() {
        Some(before) => Ok(setrlimit(Resource::Nofile, *before)?),
        None => Ok(()),
    }
}

/// The same for a command that the standard library executes.
pub fn with_former_limit(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec there is one system call, with numbers that are there already.
    unsafe { command.pre_exec(former_limit) }
}
