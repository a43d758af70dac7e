//! How long the parts of a container's life take.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::statistics::Samples;

/// Parts of a container's life, in their order. First byte and start begin together, with the request to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// containerd prepares the snapshot: the same work for every shim.
    Snapshot,
    /// containerd writes the container's record: likewise.
    Record,
    /// From the request to create the task to the answer.
    Create,
    /// From the request to start it to the answer.
    Start,
    /// From the request to start it to the first byte of its output.
    FirstByte,
    /// From the first byte to containerd's answer to who waits for the end.
    Exit,
    /// From the request to delete it to the answer.
    Delete,
}

impl Phase {
    pub(crate) const ALL: [Self; 7] = [
        Self::Snapshot,
        Self::Record,
        Self::Create,
        Self::Start,
        Self::FirstByte,
        Self::Exit,
        Self::Delete,
    ];

    /// The head of its column.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Record => "record",
            Self::Create => "create",
            Self::Start => "start",
            Self::FirstByte => "first byte",
            Self::Exit => "exit",
            Self::Delete => "delete",
        }
    }
}

/// How long one container's life took, in all and by its phases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// From the request to create the task.
    pub(crate) first_byte: Duration,
    /// From the request to create the task to the answer to the request to delete it.
    pub(crate) deleted: Duration,
    pub(crate) phases: [Duration; 7],
}

/// The phases of many lives.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Phases(BTreeMap<Phase, Samples>);

impl Phases {
    pub(crate) fn push(&mut self, life: &Life) {
        for (phase, took) in Phase::ALL.into_iter().zip(life.phases) {
            self.0.entry(phase).or_default().push(took);
        }
    }

    pub(crate) fn of(&self, phase: Phase) -> Option<&Samples> {
        self.0.get(&phase)
    }
}
