//! What each step does, and how it is taken back. Every one can be done twice, and after any interruption.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::change::{Node, listed};
use crate::cluster::Held;
use crate::config::Entry;
use crate::containerd::Containerd;
use crate::draft::{Change, Draft, fits};
use crate::files::{self, Facts};
use crate::payload::{self, DENSE, SHIM};
use crate::settings::Restart;
use crate::state::{Changing, Journal, Phase};
use crate::step::{Operation, Step, When};

/// How often a state that nobody announces is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// How often a containerd that has read an older configuration is asked to start once more.
const AGAIN: u32 = 2;
/// How long containerd may need to answer where nothing has stopped it.
const MOMENT: Duration = Duration::from_secs(5);

impl<C: Containerd> Node<C> {
    /// Does a step.
    pub(crate) async fn act(
        &self,
        step: Step,
        draft: &mut Draft,
        lease: &mut Option<Held>,
    ) -> Result<()> {
        let operation = draft.journal.operation;
        let during = || self.failures.reach(operation, step, When::During);
        match step {
            Step::Place => self.place(draft, &during),
            // The label is off for no longer than it has to be: not while others restart theirs.
            Step::Unlabel if operation == Operation::Install => {
                if self.restarts(&draft.entries).await {
                    self.take_lease(lease).await?;
                    self.cluster.unlabel().await?;
                }
                Ok(())
            }
            Step::Unlabel => self.cluster.unlabel().await,
            Step::Drain => self.drain().await,
            Step::Switch => {
                let hash = &draft.journal.next.as_ref().context("a record")?.hash;
                let current = self.current()?;
                if files::pointed(&current)?.as_deref() != Some(Path::new(hash)) {
                    files::point(&current, Path::new(hash))?;
                }
                Ok(())
            }
            Step::Configure | Step::Unconfigure => self.configure(draft, &during),
            Step::Restart | Step::Answer if draft.dead && self.uninstall.get().force => Ok(()),
            Step::Restart => {
                if self.restarts(&draft.entries).await {
                    self.take_lease(lease).await?;
                    self.containerd.restart(&draft.restart, &during).await?;
                }
                Ok(())
            }
            Step::Answer => self.answer(&draft.entries, &draft.restart).await,
            Step::Canary => {
                for entry in &draft.entries {
                    self.containerd.canary(&entry.handler, &during).await?;
                }
                Ok(())
            }
            Step::Record => self.state.set_record(draft.journal.next.as_ref()),
            Step::Label => {
                let record = draft.journal.next.as_ref().context("a record")?;
                self.cluster.label(record).await
            }
            Step::Prune => {
                self.forget_kept(draft.changes.iter().map(|change| change.path.as_path()))?;
                self.prune()
            }
            Step::Remove => self.remove(draft, &during).await,
            Step::Forget => {
                self.forget_kept(draft.changes.iter().map(|change| change.path.as_path()))?;
                // What was kept in one of them has kept it until now.
                if let Some(record) = &draft.journal.next {
                    for dir in record.made.iter().rev() {
                        files::remove_empty(&self.host.path(dir)?)?;
                    }
                }
                self.state.forget(&self.host, &self.settings.prefix)?;
                // Last: who waits for it takes it for the end.
                self.cluster.clear().await
            }
        }
    }

    /// Forgets what was kept beside files of the host, so that they could have been put back.
    pub(crate) fn forget_kept<'a>(&self, paths: impl Iterator<Item = &'a Path>) -> Result<()> {
        for path in paths {
            files::forget(&self.host.path(path)?)?;
        }
        Ok(())
    }

    async fn take_lease(&self, lease: &mut Option<Held>) -> Result<()> {
        if let Some(held) = lease {
            return held.assure().await;
        }
        self.waiting.set(true);
        let taken = self.cluster.take_lease().await;
        self.waiting.set(false);
        *lease = Some(taken?);
        Ok(())
    }

    /// Whether containerd runs with something else than these handlers of ours.
    async fn restarts(&self, entries: &[Entry]) -> bool {
        match self.containerd.runtimes().await {
            Ok(runtimes) => !fits(&runtimes, entries, &self.binaries()),
            Err(_) => true,
        }
    }

    fn place(&self, draft: &Draft, during: &dyn Fn()) -> Result<()> {
        let record = draft.journal.next.as_ref().context("a record")?;
        let payload = draft.payload.as_ref().context("a payload")?;
        let dir = self.prefix()?.join(&record.hash);
        files::make(&dir)?;
        for (name, digest) in &payload.files {
            let path = dir.join(name);
            if !intact(&path, digest)? {
                files::write_program(&path, &payload.content(name)?)?;
            }
            during();
        }
        let dense = dir.join(DENSE);
        // What is there and no link is replaced as well.
        if !matches!(files::pointed(&dense), Ok(Some(target)) if target == Path::new(SHIM)) {
            files::point(&dense, Path::new(SHIM))?;
        }
        Ok(())
    }

    async fn drain(&self) -> Result<()> {
        let how = self.uninstall.get();
        let began = Instant::now();
        loop {
            let users = match self.containerd.users().await {
                Ok(users) => users,
                Err(error) if how.force => {
                    tracing::warn!("whether pods of this runtime run is not known: {error:#}");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if users.is_empty() {
                return Ok(());
            }
            if how.force {
                self.containerd.end(&users).await?;
                continue;
            }
            let wait = Duration::from_secs(how.wait_for_pods.unwrap_or_default());
            ensure!(
                began.elapsed() < wait,
                "pods of this runtime run still: {}",
                listed(&users)
            );
            self.waiting.set(true);
            tokio::time::sleep(INTERVAL.min(wait)).await;
            self.waiting.set(false);
        }
    }

    fn configure(&self, draft: &Draft, during: &dyn Fn()) -> Result<()> {
        if let (Some(original), Some(record)) = (&draft.original, &draft.journal.next)
            && let Some(facts) = &record.config.original
        {
            self.state.back_up(original, facts)?;
        }
        for dir in &draft.journal.made {
            files::make(&self.host.path(dir)?)?;
        }
        for Change {
            path,
            bytes,
            modified,
        } in &draft.changes
        {
            let here = self.host.path(path)?;
            if files::read(&here)? == *bytes {
                continue;
            }
            let known = draft.journal.before.files.iter();
            let known = known.filter(|known| known.path == *path);
            let before = known.map(|known| &known.before).next();
            ensure!(
                before == Some(&Facts::of(&here)?),
                "{} was changed by another since it was looked at",
                path.display()
            );
            files::keep(&here)?;
            match bytes {
                Some(bytes) => {
                    files::write(&here, bytes, during)?;
                    if let Some(modified) = modified {
                        files::set_modified(&here, *modified)?;
                    }
                }
                None => {
                    during();
                    files::remove(&here)?;
                    files::sync_parent(&here)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until CRI answers and its handlers are these. A containerd that was starting while its configuration was
    /// changed has read the old one, and is asked to start once more.
    async fn answer(&self, entries: &[Entry], restart: &Restart) -> Result<()> {
        let patience = self.containerd.patience();
        let began = Instant::now();
        let mut again = AGAIN;
        loop {
            let wrong: Error = match self.containerd.runtimes().await {
                Ok(runtimes) if fits(&runtimes, entries, &self.binaries()) => return Ok(()),
                Ok(_) if again > 0 => {
                    again -= 1;
                    self.containerd.restart(restart, &|| ()).await?;
                    continue;
                }
                Ok(runtimes) => Error::msg(format!(
                    "it runs with the handlers {}, which are not the configured ones",
                    shown(&runtimes)
                )),
                Err(error) => error,
            };
            if began.elapsed() > patience {
                return Err(wrong.context(format!(
                    "containerd has not come back as configured within {} s",
                    patience.as_secs()
                )));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Removes old binaries, if there are any that nobody executes any more.
    pub(crate) async fn tidy(&self) -> Result<()> {
        if self.versions()?.len() < 2 {
            return Ok(());
        }
        // Another process may be about to install what is not current yet.
        let _lock = self.state.lock().await?;
        self.prune()
    }

    /// Removes directories of binaries that are neither current nor executed by anyone.
    pub(crate) fn prune(&self) -> Result<()> {
        let current = files::pointed(&self.current()?)?;
        for dir in self.versions()? {
            let is_current = dir.file_name() == current.as_deref().map(Path::as_os_str);
            if !is_current && !self.containerd.in_use(&dir) {
                files::remove_all(&dir)?;
            }
        }
        Ok(())
    }

    /// The directories of binaries.
    fn versions(&self) -> Result<Vec<PathBuf>> {
        let prefix = self.prefix()?;
        let entries =
            std::fs::read_dir(&prefix).with_context(|| format!("list {}", prefix.display()))?;
        Ok(entries
            .flatten()
            .filter(|entry| payload::is_hash(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect())
    }

    async fn remove(&self, draft: &Draft, during: &dyn Fn()) -> Result<()> {
        if let Err(error) = self.containerd.sweep().await {
            // It may not run; an image of a few hundred bytes is no reason to stay.
            tracing::warn!("{error:#}");
        }
        files::remove(&self.current()?)?;
        during();
        for dir in self.versions()? {
            files::remove_all(&dir)?;
        }
        // What is kept beside the configuration may be all that its directory still holds.
        self.forget_kept(draft.changes.iter().map(|change| change.path.as_path()))?;
        if let Some(record) = &draft.journal.next {
            for dir in &record.data {
                files::remove_all(&self.host.path(dir)?)?;
            }
            for dir in record.made.iter().rev() {
                files::remove_empty(&self.host.path(dir)?)?;
            }
        }
        Ok(())
    }

    /// Takes back what was done up to the step in the journal, in the opposite order. What cannot be taken back does not
    /// keep the rest from being.
    ///
    /// A later process that finds an interrupted change leaves containerd as it runs, if it does: the change is done
    /// anew right after, and finds out whether it has to be restarted.
    pub(crate) async fn undo(&self, journal: &mut Journal, later: bool) -> Result<()> {
        let operation = journal.operation;
        let mut faults = Faults::default();
        let (mut restart, mut sweep) = (false, false);
        let reached = journal.step;
        journal.phase = Phase::Undoing;
        // How far it had come stays written down: should this process be killed meanwhile, the next one begins anew. On
        // a full disk it cannot be written, and is to be done all the same.
        if let Err(error) = self.state.set_journal(Some(journal)) {
            tracing::warn!("{error:#}");
        }
        for step in operation
            .steps()
            .iter()
            .rev()
            .filter(|step| **step <= reached)
        {
            self.failures.reach(operation, *step, When::Undo);
            match step {
                Step::Record => {
                    faults.note(self.state.set_record(journal.before.record.as_ref()));
                }
                Step::Canary => sweep = true,
                Step::Restart => restart = true,
                Step::Configure | Step::Unconfigure => {
                    for changing in &journal.before.files {
                        faults.note(self.put_back(changing));
                    }
                    for dir in journal.made.iter().rev() {
                        let removed = self.host.path(dir).map_err(Error::from);
                        faults.note(removed.and_then(|here| files::remove_empty(&here).map(drop)));
                    }
                }
                Step::Switch => faults.note(self.switch_back(journal)),
                // They come last, when nothing runs from there any more.
                Step::Place
                | Step::Unlabel
                | Step::Drain
                | Step::Answer
                | Step::Label
                | Step::Prune
                | Step::Remove
                | Step::Forget => {}
            }
        }
        if restart {
            faults.note(self.come_back(journal, later).await);
        }
        if sweep {
            faults.note(self.containerd.sweep().await);
        }
        if operation == Operation::Install {
            faults.note(self.displace(journal, sweep));
        }
        faults.result()
    }

    /// containerd with what is configured again.
    async fn come_back(&self, journal: &Journal, later: bool) -> Result<()> {
        let entries = journal
            .before
            .record
            .as_ref()
            .map_or(&[][..], |record| record.entries.as_slice());
        let next = journal.next.as_ref();
        let restart = match (&self.settings.restart, self.containerd.found().await, next) {
            (Some(restart), ..) => restart.clone(),
            (None, Ok(found), _) => found.restart,
            (None, Err(_), Some(record)) => record.restart.parse().unwrap_or(Restart::None),
            (None, Err(_), None) => Restart::None,
        };
        if later {
            let began = Instant::now();
            while began.elapsed() < MOMENT {
                if self.containerd.runtimes().await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }
        if self.restarts(entries).await {
            self.containerd.restart(&restart, &|| ()).await?;
        }
        self.answer(entries, &restart)
            .await
            .context("bring containerd back")
    }

    fn put_back(&self, changing: &Changing) -> Result<()> {
        let here = self.host.path(&changing.path)?;
        let now = Facts::of(&here)?;
        let digest = now.as_ref().map(|facts| facts.digest.clone());
        let ours = digest == changing.after;
        let was = now == changing.before;
        if !ours && !was {
            // Somebody has changed it since: theirs is newer than what was kept.
            tracing::warn!(
                "{} was changed by another meanwhile: it is left as it is",
                changing.path.display()
            );
            return files::forget(&here);
        }
        files::put_back(&here, changing.before.as_ref())?;
        ensure!(
            Facts::of(&here)? == changing.before,
            "{} is not as it was before",
            changing.path.display()
        );
        Ok(())
    }

    fn switch_back(&self, journal: &Journal) -> Result<()> {
        let current = self.current()?;
        match &journal.before.current {
            Some(target) => {
                if files::pointed(&current)?.as_ref() != Some(target) {
                    files::point(&current, target)?;
                }
            }
            None => {
                files::remove(&current)?;
            }
        }
        ensure!(
            files::pointed(&current)? == journal.before.current,
            "{} does not point to where it did",
            current.display()
        );
        Ok(())
    }

    /// Removes binaries that are not those from before, and what a first canary has brought.
    fn displace(&self, journal: &Journal, canary: bool) -> Result<()> {
        let Some(next) = &journal.next else {
            return Ok(());
        };
        let dir = self.prefix()?.join(&next.hash);
        let known = journal
            .before
            .record
            .as_ref()
            .is_some_and(|record| record.hash == next.hash)
            || journal.before.current.as_deref() == Some(Path::new(&next.hash));
        if !known && !self.containerd.in_use(&dir) {
            files::remove_all(&dir)?;
        }
        if canary && journal.first() {
            for dir in &next.data {
                files::remove_all(&self.host.path(dir)?)?;
            }
        }
        Ok(())
    }
}

/// Whether a program is there as it was written.
pub(crate) fn intact(path: &Path, digest: &str) -> Result<bool> {
    Ok(Facts::of(path)?.is_some_and(|facts| {
        facts.digest == digest
            && facts.mode == 0o755
            && facts.uid == nix::unistd::geteuid().as_raw()
    }))
}

fn shown(runtimes: &Map<String, Value>) -> String {
    let names: Vec<&str> = runtimes.keys().map(String::as_str).collect();
    names.join(", ")
}

/// Faults of things that are all to be tried.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{error:#}"));
        }
    }

    fn result(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!("{}", self.0.join("; "))
    }
}
