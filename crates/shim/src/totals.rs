//! The node's totals ([`plan::numbers`]): counted by every supervisor of the node in the same memory.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jail::Numbers;
use plan::numbers::{Cause, Count, Durations, PAGE, Page, Phase, Role, TOTALS, Total, Trap, Words};

use crate::failure::{Failure, Outcome};
use crate::record::RunDir;

/// Where this process counts. Cheap to clone; where there is no memory for it, nothing is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals(Option<Arc<Numbers>>);

impl Totals {
    /// Those below the node's run directory.
    pub(crate) fn of(run: &Path) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let path = run.join(TOTALS);
        let numbers = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run)
            .and_then(|()| Numbers::at(&path));
        match numbers {
            Ok(numbers) => Self(Some(Arc::new(numbers))),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "nothing is counted");
                Self(None)
            }
        }
    }

    pub(crate) fn add(&self, total: Total, by: u64) {
        self.word(total.word(), by);
    }

    pub(crate) fn one(&self, total: Total) {
        self.add(total, 1);
    }

    fn word(&self, word: usize, by: u64) {
        if let Some(numbers) = &self.0 {
            numbers.add(word, by);
        }
    }

    /// A program was compiled.
    pub(crate) fn compiled(&self, took: Duration, guest: u64, artifact: u64) {
        self.add(Total::CompiledGuest, guest);
        self.add(Total::CompiledArtifact, artifact);
        self.took(Durations::COMPILE, took);
    }

    fn took(&self, durations: Durations, took: Duration) {
        for (word, by) in durations.of(took) {
            self.word(word, by);
        }
    }

    /// A phase took so long.
    pub(crate) fn phase(&self, phase: Phase, took: Duration) {
        self.took(Durations::START[phase as usize], took);
    }

    /// Measures a phase that succeeds; one that fails says nothing of how long it takes.
    pub(crate) async fn timed<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let begun = Instant::now();
        let done = work.await;
        if done.is_ok() {
            self.phase(phase, begun.elapsed());
        }
        done
    }

    /// What a container did is part of the node's sums once its page goes: takes the page away.
    pub(crate) fn fold(&self, dir: &RunDir) {
        let path = dir.numbers();
        let Ok(bytes) = fs::read(&path) else { return };
        if fs::remove_file(&path).is_err() {
            // Somebody else has; it counts once.
            return;
        }
        let page = Page(Words::of(&bytes));
        for trap in Trap::ALL {
            self.add(Total::Trapped(trap), page.get(Count::Trapped(trap)));
        }
        self.add(Total::Fuel, page.get(Count::Fuel));
    }
}

/// The same for a container whose supervisor has died, and the container with it.
pub(crate) fn fold_killed(dir: &RunDir, status: u32) {
    let run = dir.path().parent().and_then(Path::parent);
    if let Some(run) = run
        && dir.numbers().exists()
    {
        let totals = Totals::of(run);
        totals.one(Total::ended(status));
        totals.fold(dir);
    }
}

/// Makes a container's page, or opens the one that is there; a container runs without as well.
pub(crate) fn page(dir: &RunDir) -> Option<OwnedFd> {
    let path = dir.numbers();
    let made = match jail::page(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map(OwnedFd::from),
        made => made,
    };
    made.inspect_err(|error| {
        tracing::warn!(%error, path = %path.display(), "a container is not counted");
    })
    .ok()
}

impl Failure {
    /// What the failure counts as.
    pub(crate) const fn cause(&self) -> Cause {
        use crate::failure::Kind;
        match self.kind() {
            Kind::Invalid => Cause::Invalid,
            Kind::NotFound => Cause::NotFound,
            Kind::Exists | Kind::Precondition => Cause::Precondition,
            Kind::Exhausted => Cause::Exhausted,
            Kind::Unimplemented => Cause::Unimplemented,
            Kind::Unavailable | Kind::Internal => Cause::Internal,
        }
    }
}

impl crate::container::Runs {
    /// What the container counts as.
    pub(crate) const fn role(&self) -> Role {
        match self {
            Self::Guest(_) => Role::Wasm,
            Self::Holder => Role::Pod,
            Self::Native(_) => Role::Native,
        }
    }
}

impl RunDir {
    /// Where the container's page is.
    fn numbers(&self) -> std::path::PathBuf {
        self.path().join(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use plan::numbers::Totals as Read;

    use super::*;

    #[test]
    fn what_a_container_did_is_the_nodes_when_it_goes_and_only_once() {
        let run = tempfile::tempdir().expect("temporary directory");
        let totals = Totals::of(run.path());
        let dir = RunDir::new(run.path(), "ns", "c1");
        dir.create().expect("made");
        let file = page(&dir).expect("a page");
        let numbers = Numbers::map(file.as_fd()).expect("mapped");
        numbers.add(Count::Trapped(Trap::Memory).word(), 2);
        numbers.add(Count::Fuel.word(), u64::MAX);
        // Executed beside it: the same page.
        page(&dir).expect("the page that is there");
        Totals::of(run.path()).fold(&dir);
        totals.fold(&dir);
        let words = Words::of(&fs::read(run.path().join(TOTALS)).expect("readable"));
        let read = Read(words);
        assert_eq!(read.get(Total::Trapped(Trap::Memory)), 2);
        assert_eq!(read.get(Total::Fuel), Page::MOST, "a page may lie");
    }

    #[tokio::test]
    async fn a_phase_is_measured_where_it_succeeds() {
        let run = tempfile::tempdir().expect("temporary directory");
        let totals = Totals::of(run.path());
        let good = totals.timed(Phase::Image, async { Ok(7) });
        assert_eq!(good.await, Ok(7));
        let bad = totals.timed(Phase::Image, async {
            Err::<(), _>(Failure::unimplemented("x"))
        });
        assert_eq!(bad.await.expect_err("failed").cause(), Cause::Unimplemented);
        let words = Words::of(&fs::read(run.path().join(TOTALS)).expect("readable"));
        assert_eq!(
            Durations::START[Phase::Image as usize].seen(&words).count,
            1
        );
        assert_eq!(
            Durations::START[Phase::Spawn as usize].seen(&words).count,
            0
        );
    }
}
