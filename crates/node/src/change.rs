//! One node, and the changes that can be made to it: each all or nothing.
use std::cell::Cell;
use std::fs::File;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result, anyhow};

use crate::cluster::{Cluster, Held, Reason};
use crate::containerd::{Containerd, User};
use crate::draft::Draft;
use crate::files;
use crate::host::Host;
use crate::layout::Layout;
use crate::payload::Payload;
use crate::settings::{Settings, Uninstall};
use crate::state::{Journal, Outcome, Phase, Record, State};
use crate::step::{Failures, Operation, When};

/// A node with all that is needed to change it.
#[derive(Debug)]
pub struct Node<C> {
    /// What was asked for.
    pub settings: Settings,
    /// Its files.
    pub host: Host,
    /// Its distribution.
    pub layout: &'static Layout,
    /// What is written down.
    pub state: State,
    /// Its containerd.
    pub containerd: C,
    /// Its cluster.
    pub cluster: Cluster,
    /// What a test wants to go wrong.
    pub failures: Failures,
    /// How pods are treated by an uninstallation.
    pub uninstall: Cell<Uninstall>,
    /// Whether a change is waiting for others (the lease, pods that are to end), which may take long and can be given up.
    pub waiting: Cell<bool>,
}

impl<C: Containerd> Node<C> {
    /// A node by its settings; nothing is touched.
    ///
    /// # Errors
    /// When the prefix leads nowhere, or there is no such step to fail at.
    pub fn new(settings: Settings, containerd: C, cluster: Cluster) -> Result<Self> {
        let host = Host::new(&settings.host);
        let prefix = host.path(&settings.prefix)?;
        Ok(Self {
            layout: Layout::of(&host),
            state: State::below(&prefix),
            failures: Failures::parse(settings.fail_at.as_deref().unwrap_or_default())?,
            uninstall: Cell::default(),
            waiting: Cell::default(),
            settings,
            host,
            containerd,
            cluster,
        })
    }

    /// The prefix, as it lies here.
    pub(crate) fn prefix(&self) -> Result<PathBuf> {
        Ok(self.host.path(&self.settings.prefix)?)
    }

    /// The link to the binaries in use. Its own name is not followed.
    pub(crate) fn current(&self) -> Result<PathBuf> {
        Ok(self.prefix()?.join("current"))
    }

    /// The directory of the binaries as containerd is told of it: a path of the host that stays the same.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.settings.prefix.join("current")
    }

    /// Installs, upgrades or repairs: whatever it takes. Returns what is installed then.
    ///
    /// # Errors
    /// Why not; everything is as before then, or the message says what could not be put back.
    pub async fn install(&self, payload: &Payload) -> Result<Record> {
        let mut lock = None;
        let result = match self.begin_install(payload, &mut lock).await {
            Ok(mut draft) => match self.perform(&mut draft).await {
                Ok(()) => draft.journal.next.context("an installation has a record"),
                Err(error) => Err(error),
            },
            Err(error) => {
                // Where nothing works, nothing is to be scheduled.
                if self.works().await.is_none()
                    && let Err(error) = self.cluster.unlabel().await
                {
                    tracing::warn!("{error:#}");
                }
                Err(error)
            }
        };
        self.conclude(Operation::Install, result.as_ref().err());
        match &result {
            Ok(record) => {
                let message = format!(
                    "Sampan {} (engine {}) runs on containerd {}: handlers {}",
                    record.versions.shim,
                    record.versions.engine,
                    record.containerd,
                    record.handlers().join(", ")
                );
                self.cluster.tell(Reason::Installed, &message).await;
            }
            Err(error) => {
                let message = format!("{error:#}");
                self.cluster.tell(Reason::InstallFailed, &message).await;
            }
        }
        result
    }

    /// All that comes before the first change; the lock is to be held until the end.
    async fn begin_install(&self, payload: &Payload, lock: &mut Option<File>) -> Result<Draft> {
        *lock = Some(self.open().await?);
        self.recover().await?;
        let draft = self.draft_install(payload).await;
        draft.context("nothing was touched")
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// Why not; everything is as before then, or the message says what could not be put back.
    pub async fn uninstall(&self, how: Uninstall) -> Result<()> {
        self.uninstall.set(how);
        if !self.state.dir().exists() && self.draft_uninstall().await?.changes.is_empty() {
            tracing::info!("nothing is installed");
            return self.cluster.clear().await;
        }
        let _lock = self.open().await?;
        self.recover().await?;
        let result = async {
            let mut draft = self.draft_uninstall().await?;
            self.perform(&mut draft).await
        }
        .await;
        match &result {
            Ok(()) => {
                self.cluster
                    .tell(Reason::Uninstalled, "Sampan is gone from this node")
                    .await;
            }
            Err(error) => self.conclude(Operation::Uninstall, Some(error)),
        }
        result
    }

    /// Makes the state directory and takes the lock.
    async fn open(&self) -> Result<File> {
        let made = files::missing(self.state.dir());
        files::make(self.state.dir())?;
        // What is kept there are copies of configurations, which may hold a registry's password.
        files::make_private(self.state.dir())?;
        self.state.note_made(&made)?;
        self.state.lock().await
    }

    /// Takes back, or finishes, what was given up.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn settle(&self) -> Result<()> {
        if self.state.journal()?.is_none() {
            return Ok(());
        }
        let _lock = self.state.lock().await?;
        self.recover().await
    }

    /// What was begun by a process that did not live to finish it is taken back, or if it was as good as done, finished.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn recover(&self) -> Result<()> {
        let Some(mut journal) = self.state.journal()? else {
            return Ok(());
        };
        tracing::warn!("an interrupted {} is found", journal.place());
        if journal.step >= journal.operation.commits_at() {
            self.forget_kept(
                journal
                    .before
                    .files
                    .iter()
                    .map(|changing| changing.path.as_path()),
            )?;
            // What is left of an uninstallation is in the record still, or there is nothing left.
            if journal.operation == Operation::Install {
                self.state.set_journal(None)?;
            }
            return Ok(());
        }
        let place = journal.place();
        self.undo(&mut journal, true)
            .await
            .with_context(|| format!("take back the interrupted {place}"))?;
        self.state.set_journal(None)
    }

    /// Makes the change, step by step; takes back what was done if one fails.
    async fn perform(&self, draft: &mut Draft) -> Result<()> {
        let operation = draft.journal.operation;
        let mut lease = None;
        for step in operation.steps() {
            draft.journal.step = *step;
            draft.journal.phase = Phase::Begun;
            let done = async {
                self.state.set_journal(Some(&draft.journal))?;
                self.failures.reach(operation, *step, When::Before);
                self.act(*step, draft, &mut lease).await?;
                self.failures.after(*step)?;
                self.failures.reach(operation, *step, When::After);
                if !self.state.dir().exists() {
                    return Ok(());
                }
                draft.journal.phase = Phase::Done;
                self.state.set_journal(Some(&draft.journal))
            }
            .await;
            let Err(error) = done.with_context(|| format!("step {operation}:{step}")) else {
                continue;
            };
            let error = if *step >= operation.commits_at() {
                error.context("what is left to do is done by the next run")
            } else {
                self.take_back(draft, error).await
            };
            give(lease).await;
            return Err(error);
        }
        give(lease).await;
        if self.state.dir().exists() {
            self.state.set_journal(None)?;
        }
        Ok(())
    }

    /// A step has failed: the label goes first, then everything is put back. The result says what came of that.
    async fn take_back(&self, draft: &mut Draft, error: Error) -> Error {
        tracing::error!("{error:#}; taking it back");
        if let Err(error) = self.cluster.unlabel().await {
            tracing::warn!("{error:#}");
        }
        let undone = self.undo(&mut draft.journal, false).await;
        let message = format!("{error:#}");
        match undone {
            Ok(()) => {
                if let Err(error) = self.state.set_journal(None) {
                    tracing::warn!("forget what was begun: {error:#}");
                }
                let back = match self.works().await {
                    Some(record) => match self.cluster.label(&record).await {
                        Ok(()) => format!("what was installed before ({}) works", record.hash),
                        Err(error) => format!("{error:#}"),
                    },
                    None => "the node is as it was".to_owned(),
                };
                let told = format!("{message}; rolled back, {back}");
                self.cluster.tell(Reason::RolledBack, &told).await;
                anyhow!("{told}")
            }
            Err(undoing) => {
                let told = format!("{message}; and it could not all be taken back: {undoing:#}");
                self.cluster.tell(Reason::RolledBack, &told).await;
                anyhow!("{told}")
            }
        }
    }

    /// What is installed, if it works right now.
    pub async fn works(&self) -> Option<Record> {
        let record = self.state.record().ok().flatten()?;
        if self.state.journal().ok()?.is_some() {
            return None;
        }
        match self.verify(&record, true).await {
            Ok(()) => Some(record),
            Err(error) => {
                tracing::warn!("what is installed does not work: {error:#}");
                None
            }
        }
    }

    /// Writes down what came of it. That this cannot be written is no reason to fail.
    fn conclude(&self, operation: Operation, error: Option<&Error>) {
        let outcome = Outcome {
            operation,
            result: if error.is_some() {
                "failed"
            } else {
                "succeeded"
            }
            .to_owned(),
            reason: error.map(|error| format!("{error:#}")),
            at: SystemTime::now(),
        };
        if let Err(error) = self.state.set_outcome(&outcome) {
            tracing::warn!("write down what happened: {error:#}");
        }
    }
}

async fn give(lease: Option<Held>) {
    if let Some(lease) = lease {
        lease.give().await;
    }
}

/// Which pods keep the runtime, for a message.
pub(crate) fn listed(users: &[User]) -> String {
    let mut names: Vec<String> = users
        .iter()
        .map(|user| {
            user.pod
                .clone()
                .unwrap_or_else(|| format!("{} in {}", user.id, user.namespace))
        })
        .collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

impl Journal {
    /// What was recorded before, if anything was.
    #[must_use]
    pub fn first(&self) -> bool {
        self.before.record.is_none()
    }
}

#[cfg(test)]
mod tests;
