//! Noticing that what is installed is not what it should be.
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::change::Node;
use crate::config::{self, Kind};
use crate::containerd::Containerd;
use crate::draft::fits;
use crate::files;
use crate::payload::{DENSE, Payload, SHIM};
use crate::state::Record;
use crate::steps::intact;

/// What a look has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Look {
    /// All is as it should be.
    Fine,
    /// It has never been installed here, or not this.
    Due(String),
    /// It was installed and is not as it was.
    Drift(String),
}

/// Files that were found intact, by what changes when they are written: nobody hashes 40 MB twice a minute.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<PathBuf, (u64, u64, i64, i64)>);

impl Seen {
    fn intact(&mut self, path: &Path, digest: &str) -> Result<bool> {
        let Ok(meta) = std::fs::metadata(path) else {
            return Ok(false);
        };
        let stamp = (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        if self.0.get(path) == Some(&stamp) {
            return Ok(true);
        }
        let intact = intact(path, digest)?;
        if intact {
            self.0.insert(path.to_owned(), stamp);
        }
        Ok(intact)
    }
}

impl<C: Containerd> Node<C> {
    /// Looks whether what is installed is this payload, and as it should be.
    ///
    /// # Errors
    /// When containerd cannot be asked: what is wrong then is not ours to repair.
    pub async fn look(&self, payload: &Payload, seen: &mut Seen) -> Result<Look> {
        let Some(record) = self.state.record()? else {
            return Ok(Look::Due("nothing is installed".to_owned()));
        };
        if let Some(journal) = self.state.journal()? {
            return Ok(Look::Due(format!("{} was interrupted", journal.place())));
        }
        if record.hash != payload.hash || record.handlers() != self.settings.runtimeclasses {
            return Ok(Look::Due(format!(
                "{} is installed and {} is to be",
                record.hash, payload.hash
            )));
        }
        if let Err(error) = self.files_fit(&record, seen) {
            return Ok(Look::Drift(format!("{error:#}")));
        }
        let found = self.containerd.found().await?;
        if found.version != record.containerd {
            return Ok(Look::Drift(format!(
                "containerd was {} and is {}",
                record.containerd, found.version
            )));
        }
        let runtimes = self.containerd.runtimes().await?;
        if !fits(&runtimes, &record.entries, &self.binaries()) {
            return Ok(Look::Drift(
                "containerd does not run with the handlers that are configured".to_owned(),
            ));
        }
        Ok(Look::Fine)
    }

    /// Whether what is installed works: its files, containerd's handlers and, if wanted, the canary.
    ///
    /// # Errors
    /// What does not.
    pub async fn verify(&self, record: &Record, canary: bool) -> Result<()> {
        self.files_fit(record, &mut Seen::default())?;
        let runtimes = self.containerd.runtimes().await?;
        ensure!(
            fits(&runtimes, &record.entries, &self.binaries()),
            "containerd does not run with the handlers that are configured"
        );
        if canary {
            for entry in &record.entries {
                self.containerd.canary(&entry.handler, &|| ()).await?;
            }
        }
        Ok(())
    }

    fn files_fit(&self, record: &Record, seen: &mut Seen) -> Result<()> {
        let prefix = self.prefix()?;
        let current = files::pointed(&self.current()?)?;
        ensure!(
            current.as_deref() == Some(Path::new(&record.hash)),
            "{} does not point to {}",
            self.settings.prefix.join("current").display(),
            record.hash
        );
        for (name, digest) in &record.files {
            ensure!(
                seen.intact(&prefix.join(&record.hash).join(name), digest)?,
                "{name} is not the one that was installed"
            );
        }
        ensure!(
            files::pointed(&prefix.join(&record.hash).join(DENSE))?.as_deref()
                == Some(Path::new(SHIM)),
            "{DENSE} is not the link that was installed"
        );
        let path = &record.config.path;
        let bytes = files::read(&self.host.path(path)?)?
            .with_context(|| format!("{} is gone", path.display()))?;
        let whole = match record.config.kind {
            Kind::DropIn => files::digest(&bytes) == record.config.digest,
            // Others may have changed the rest of it.
            Kind::Block => {
                record.entries.iter().all(|entry| {
                    (1..=3).any(|version| {
                        String::from_utf8_lossy(&bytes).contains(&entry.tables(version))
                    })
                }) && config::holds(&bytes)
            }
        };
        ensure!(whole, "{} has lost the handlers", path.display());
        Ok(())
    }
}
