//! What `status` prints.
use serde::Serialize;

use anyhow::Result;

use crate::change::Node;
use crate::containerd::Containerd;
use crate::files;
use crate::state::{Outcome, Record};

/// What `status` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `installed`, `interrupted` or `absent`.
    pub state: &'static str,
    /// The step at which a change was interrupted: the next run takes it back or finishes it.
    pub interrupted: Option<String>,
    /// The directory that `current` points to.
    pub current: Option<String>,
    /// What is installed.
    pub record: Option<Record>,
    /// What happened last.
    pub last: Option<Outcome>,
}

impl<C: Containerd> Node<C> {
    /// What is written down. It asks nobody and changes nothing.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn status(&self) -> Result<Status> {
        let record = self.state.record()?;
        let journal = self.state.journal()?;
        Ok(Status {
            state: match (&journal, &record) {
                (Some(_), _) => "interrupted",
                (None, Some(_)) => "installed",
                (None, None) => "absent",
            },
            interrupted: journal.map(|journal| journal.place()),
            current: files::pointed(&self.current()?)?.map(|path| path.display().to_string()),
            record,
            last: self.state.outcome()?,
        })
    }
}
