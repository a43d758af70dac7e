//! What this program writes down on the host, in `<prefix>/state`: what is installed, and what it is about to do.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Entry, Kind};
use crate::files::{self, Facts};
use crate::host::Host;
use crate::step::{Operation, Step, When};

/// What is installed. It is there from the end of the first installation to the end of the uninstallation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The distribution's name.
    pub layout: String,
    /// The directory of the binaries below the prefix: the hash of their content.
    pub hash: String,
    /// What is part of the directory, with the digest of each.
    pub files: BTreeMap<String, String>,
    /// The file of the host that has our handlers.
    pub config: Configured,
    /// Our handlers.
    pub entries: Vec<Entry>,
    /// containerd's version when the canary last ran.
    pub containerd: String,
    /// How containerd is restarted: for when it does not run, and cannot be asked who serves it.
    pub restart: String,
    /// Versions of what is installed.
    pub versions: Versions,
    /// Directories of the host that we made, the highest first.
    pub made: Vec<PathBuf>,
    /// Directories that the shim fills and that were not there before us.
    pub data: Vec<PathBuf>,
}

impl Record {
    /// The names of our handlers.
    #[must_use]
    pub fn handlers(&self) -> Vec<&str> {
        self.entries
            .iter()
            .map(|entry| entry.handler.as_str())
            .collect()
    }
}

/// The file that has our handlers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Configured {
    /// Its path on the host.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// The digest of all of it as we wrote it.
    pub digest: String,
    /// The digest of what was left of it without our handlers then.
    pub bare: String,
    /// What it was without us; `None` where there was no file.
    pub original: Option<Facts>,
    /// The name of the byte-identical copy in the state directory.
    pub backup: Option<String>,
}

/// Versions for the node's annotations.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Versions {
    /// The shim's.
    pub shim: String,
    /// The engine's.
    pub engine: String,
    /// WASI's.
    pub wasi: String,
}

/// What is being done, and what it was like before: written before anything is touched, removed when all is done or
/// taken back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Journal {
    /// What is being done.
    pub operation: Operation,
    /// How far it has come.
    pub step: Step,
    /// Whether that step has begun, is done, or is being taken back.
    pub phase: Phase,
    /// What was like before.
    pub before: Before,
    /// What is to be recorded; none where nothing was ever installed and only remains are taken away.
    pub next: Option<Record>,
    /// Directories of the host that were not there before this operation, the highest first.
    pub made: Vec<PathBuf>,
}

/// Where in a step.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It has begun.
    Begun,
    /// It is done.
    Done,
    /// It and what comes before it is being taken back.
    Undoing,
}

/// What an operation has to be able to put back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Before {
    /// The files of the host that are to be changed.
    pub files: Vec<Changing>,
    /// Where `current` pointed to.
    pub current: Option<PathBuf>,
    /// The record.
    pub record: Option<Record>,
}

/// A file of the host that is to be changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Changing {
    /// Its path on the host.
    pub path: PathBuf,
    /// What it was; `None` where there was no file.
    pub before: Option<Facts>,
    /// The digest of what it is to hold; `None` if it is to go.
    pub after: Option<String>,
}

/// What happened last, for people.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Outcome {
    /// What was done.
    pub operation: Operation,
    /// `succeeded` or `failed`.
    pub result: String,
    /// Why, if it failed.
    pub reason: Option<String>,
    /// When.
    pub at: SystemTime,
}

const RECORD: &str = "record.json";
const JOURNAL: &str = "journal.json";
const OUTCOME: &str = "last.json";
const LOCK: &str = "lock";
/// Directories that were not there before this one.
const MADE: &str = "made.json";

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// The state below a prefix, as it lies here.
    #[must_use]
    pub fn below(prefix: &Path) -> Self {
        Self {
            dir: prefix.join("state"),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps other processes of this program away for as long as the result lives.
    ///
    /// # Errors
    /// When the lock cannot be made (the directory has to be there).
    pub async fn lock(&self) -> Result<File> {
        let path = self.dir.join(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        let waiting = file.try_clone().context("share the lock")?;
        // The other one may be waiting for containerd.
        tokio::task::spawn_blocking(move || waiting.lock())
            .await
            .context("wait for the lock")?
            .with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// What is installed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn record(&self) -> Result<Option<Record>> {
        self.load(RECORD)
    }

    /// Writes down what is installed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_record(&self, record: Option<&Record>) -> Result<()> {
        self.store(RECORD, record)
    }

    /// What was being done, if it was not finished.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal(&self) -> Result<Option<Journal>> {
        self.load(JOURNAL)
    }

    /// Writes down what is being done.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_journal(&self, journal: Option<&Journal>) -> Result<()> {
        self.store(JOURNAL, journal)
    }

    /// What happened last.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn outcome(&self) -> Result<Option<Outcome>> {
        self.load(OUTCOME)
    }

    /// Writes down what happened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_outcome(&self, outcome: &Outcome) -> Result<()> {
        self.store(OUTCOME, Some(outcome))
    }

    /// Keeps a byte-identical copy, for people: the program itself does not need it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn back_up(&self, bytes: &[u8], facts: &Facts) -> Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let path = self.dir.join(Self::backup_name(facts));
        if files::read(&path)?.as_deref() != Some(bytes) {
            files::write(&path, bytes, || ())?;
        }
        chown(&path, Some(facts.uid), Some(facts.gid))
            .and_then(|()| {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(facts.mode))
            })
            .with_context(|| format!("set owner and mode of {}", path.display()))
    }

    /// What the copy of a file is called there.
    #[must_use]
    pub fn backup_name(facts: &Facts) -> String {
        format!("backup-{}", &facts.digest[..16])
    }

    /// Writes down which directories were not there before the state directory was made.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_made(&self, made: &[PathBuf]) -> Result<()> {
        if made.is_empty() || self.dir.join(MADE).exists() {
            return Ok(());
        }
        self.store(MADE, Some(&made))
    }

    /// Removes all that is written down, and the directories that were made for it. The journal goes last: as long as it
    /// is there, the next run knows what is to be done.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn forget(&self, host: &Host, prefix: &Path) -> Result<()> {
        let made: Vec<PathBuf> = self.load(MADE)?.unwrap_or_default();
        let entries =
            std::fs::read_dir(&self.dir).with_context(|| format!("list {}", self.dir.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == JOURNAL || name == LOCK {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                files::remove_all(&entry.path())?;
            } else {
                files::remove(&entry.path())?;
            }
        }
        files::remove(&self.dir.join(JOURNAL))?;
        files::remove(&self.dir.join(LOCK))?;
        files::remove_empty(&self.dir)?;
        files::remove_empty(&host.path(prefix)?)?;
        for dir in made.iter().rev() {
            files::remove_empty(dir)?;
        }
        Ok(())
    }

    fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.dir.join(name);
        let Some(bytes) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }

    fn store<T: Serialize>(&self, name: &str, value: Option<&T>) -> Result<()> {
        let path = self.dir.join(name);
        match value {
            Some(value) => {
                let mut text = serde_json::to_vec_pretty(value).context("write JSON")?;
                text.push(b'\n');
                files::write(&path, &text, || ())
            }
            None if self.dir.exists() => {
                files::remove(&path)?;
                files::sync_parent(&path)
            }
            None => Ok(()),
        }
    }
}

impl Journal {
    /// The step with what is written down of it, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let when = match self.phase {
            Phase::Begun => When::Before,
            Phase::Done => When::After,
            Phase::Undoing => When::Undo,
        };
        format!("{}:{}:{when}", self.operation, self.step)
    }
}
