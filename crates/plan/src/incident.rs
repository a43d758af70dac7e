//! What went wrong with a container, on its way from the supervisor to whoever tells people: one small file each, in
//! [`INCIDENTS`] below the run directory.

use serde::{Deserialize, Serialize};

use crate::ExitCode;
use crate::numbers::Labels;

/// The directory's name in the run directory, which nobody writes to where it is not. No containerd namespace can be
/// called so.
pub const INCIDENTS: &str = ".incidents";
/// Files that may lie there; what comes beyond them is counted and forgotten.
pub const MOST: usize = 256;
/// Bytes of a message; Kubernetes takes no longer one in an event.
pub const LONGEST: usize = 1000;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Whose container it is.
    pub labels: Labels,
    /// Which sort.
    pub reason: Reason,
    /// One line for people: what stands in the termination message.
    pub message: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Sorts of incidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// The container could not be created.
    CreateFailed,
    /// The guest trapped.
    Trap,
    /// The guest's memory limit ended it, or the kernel killed it for want of memory.
    OutOfMemory,
    /// The guest used up its fuel.
    OutOfTime,
    /// The guest could not be run.
    NotRunnable,
    /// A fault of ours or of the node.
    Internal,
}

impl Reason {
    /// Of a container that ended with this code and an account of it.
    #[must_use]
    pub fn of(code: u32) -> Self {
        let is = |known: ExitCode| u32::from(known as u8) == code;
        if is(ExitCode::Trap) {
            Self::Trap
        } else if is(ExitCode::OutOfMemory) {
            Self::OutOfMemory
        } else if is(ExitCode::OutOfTime) {
            Self::OutOfTime
        } else if is(ExitCode::NotRunnable) || is(ExitCode::NotFound) {
            Self::NotRunnable
        } else {
            Self::Internal
        }
    }

    /// The reason of an event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateFailed => "SampanCreateFailed",
            Self::Trap => "SampanTrap",
            Self::OutOfMemory => "SampanOutOfMemory",
            Self::OutOfTime => "SampanOutOfTime",
            Self::NotRunnable => "SampanNotRunnable",
            Self::Internal => "SampanInternal",
        }
    }
}

/// The first line, without what could be taken for something else than text, and no longer than it may be.
#[must_use]
pub fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST - 3));
        line.push_str("...");
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_not_too_long() {
        assert_eq!(one_line("sampan: trap\n  0: f\n"), "sampan: trap");
        assert_eq!(one_line("a\u{1b}[31mb"), "a [31mb");
        let long = one_line(&"ä".repeat(5000));
        assert!(long.len() <= LONGEST && long.ends_with("..."));
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn each_end_has_its_reason() {
        for (code, reason) in [
            (121, Reason::Trap),
            (122, Reason::OutOfMemory),
            (123, Reason::OutOfTime),
            (125, Reason::Internal),
            (126, Reason::NotRunnable),
            (127, Reason::NotRunnable),
        ] {
            assert_eq!(Reason::of(code), reason);
        }
    }
}
