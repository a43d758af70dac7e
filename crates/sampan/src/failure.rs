//! What ends a command, and the exit code for it (docs/tool.md, "Exit codes").

use std::fmt;

use crate::output::harmless;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

/// By what whoever called can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was given is not what it should be: a manifest, an image, an option.
    Wrong,
    /// What was named is not there: a file, an image, a container, a function.
    NotFound,
    /// The program cannot run.
    Refused,
    /// The machine, the network or the registry failed.
    System,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// The message becomes one line.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            kind,
            message: harmless(&message),
        }
    }

    /// An error with all that it came from.
    pub(crate) fn of(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self::new(kind, format!("{:#}", error.into()))
    }

    /// What was attempted, and why it failed.
    pub(crate) fn at(
        kind: Kind,
        attempt: impl fmt::Display,
        error: impl Into<anyhow::Error>,
    ) -> Self {
        Self::new(kind, format!("{attempt}: {:#}", error.into()))
    }

    /// While a guest is to be run, codes are those of a container (docs/reference.md, "Exit codes").
    pub(crate) const fn code(&self, running: bool) -> u8 {
        match (self.kind, running) {
            (Kind::Wrong, _) | (Kind::NotFound, false) => 2,
            (Kind::Refused, false) => 1,
            (Kind::System, false) => 3,
            (Kind::System, true) => plan::ExitCode::Internal as u8,
            (Kind::Refused, true) => plan::ExitCode::NotRunnable as u8,
            (Kind::NotFound, true) => plan::ExitCode::NotFound as u8,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
