//! The shim's own log: into the FIFO `log` of a bundle, which containerd copies to its own.
//!
//! containerd reads that of every container that it has, and closes it with the container. So the supervisor writes into
//! one of a container that it has too, and changes to another when that one goes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plan::numbers::Total;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::totals::Totals;

/// Where the log goes; a copy means the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Written>>);

#[derive(Debug, Default)]
struct Written {
    /// The bundle that is written into, with its FIFO.
    into: Option<(PathBuf, File)>,
    /// The bundles of the containers that are there, by their ids.
    bundles: HashMap<String, PathBuf>,
    /// Where lines count that nobody took.
    totals: Totals,
}

/// Starts logging into the bundle's FIFO; without one (started by hand) nothing is logged before there is a container.
pub(crate) fn start(bundle: &Path, debug: bool) -> Logs {
    let logs = Logs::default();
    logs.written().change_to(bundle);
    let level = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    // A second start in one process cannot happen; if it did, the first log stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        // Spans are of level debug alone: how long each step of a request took.
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_target(false)
        .with_writer(Mutex::new(logs.clone()))
        .try_init();
    logs
}

impl Logs {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is lost counts there from now on.
    pub(crate) fn count_in(&self, totals: &Totals) {
        self.written().totals = totals.clone();
    }

    /// containerd has asked for a container with this bundle: it reads the bundle's FIFO.
    pub(crate) fn there(&self, id: &str, bundle: &str) {
        let mut written = self.written();
        written.bundles.insert(id.to_owned(), bundle.into());
        written.settle();
    }

    /// The container goes, and whoever reads its FIFO.
    pub(crate) fn gone(&self, id: &str) {
        let mut written = self.written();
        written.bundles.remove(id);
        written.settle();
    }
}

impl Written {
    /// Stays with a bundle that is there, else changes to one. Where there is none, nobody is known to read.
    fn settle(&mut self) {
        let stays = self
            .into
            .as_ref()
            .is_some_and(|(into, _)| self.bundles.values().any(|bundle| bundle == into));
        if !stays {
            let bundles: Vec<PathBuf> = self.bundles.values().cloned().collect();
            let _ = bundles.iter().any(|bundle| self.change_to(bundle));
        }
    }

    /// Whether there is a FIFO to change to.
    fn change_to(&mut self, bundle: &Path) -> bool {
        // Read and write: the pipe outlives a restart of containerd without a broken pipe.
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(bundle.join("log"));
        let there = opened.ok().map(|fifo| (bundle.to_owned(), fifo));
        let changes = there.is_some();
        if changes {
            self.into = there;
        }
        changes
    }
}

impl Write for Logs {
    /// Never waits: while containerd is away the pipe fills up, and then lines are lost rather than containers stopped.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let mut written = self.written();
        let Some((_, fifo)) = &mut written.into else {
            return Ok(line.len());
        };
        match fifo.write(line) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                written.totals.one(Total::LogLineDropped);
                Ok(line.len())
            }
            done => done,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use plan::numbers::{TOTALS, Words};

    use super::*;

    /// A bundle, and containerd's end of its FIFO.
    fn bundle(dir: &Path, name: &str) -> (String, File) {
        let bundle = dir.join(name);
        std::fs::create_dir(&bundle).expect("made");
        let log = bundle.join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let reader = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(log)
            .expect("opens");
        (bundle.display().to_string(), reader)
    }

    fn read(reader: &mut File) -> String {
        let mut text = [0; 64];
        let read = reader.read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..read]).into_owned()
    }

    #[test]
    fn lines_go_to_a_container_that_is_there() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (first, mut of_first) = bundle(dir.path(), "first");
        let (second, mut of_second) = bundle(dir.path(), "second");
        let mut logs = Logs::default();
        logs.write_all(b"nobody reads").expect("lost");
        logs.there("1", &first);
        logs.write_all(b"one").expect("writes");
        logs.there("2", &second);
        logs.there("3", "/does/not/exist");
        logs.write_all(b"two").expect("writes");
        assert_eq!(read(&mut of_first), "onetwo");
        logs.gone("1");
        logs.write_all(b"three").expect("writes");
        assert_eq!(
            (read(&mut of_first), read(&mut of_second)),
            (String::new(), "three".to_owned())
        );
        logs.gone("2");
        logs.write_all(b"to nobody else").expect("writes");
        logs.there("1", &first);
        logs.write_all(b"four").expect("writes");
        assert_eq!(read(&mut of_first), "four");
    }

    #[test]
    fn a_full_pipe_holds_nobody_up_and_what_is_lost_is_counted() {
        const LINE: usize = 4096;
        let dir = tempfile::tempdir().expect("temporary directory");
        let (first, mut reader) = bundle(dir.path(), "first");
        let mut logs = Logs::default();
        logs.count_in(&Totals::of(dir.path()));
        logs.there("1", &first);
        for _ in 0..100 {
            logs.write_all(&[b'x'; LINE]).expect("written or lost");
        }
        let mut lines = 0;
        while reader.read(&mut [0; LINE]).is_ok() {
            lines += 1;
        }
        let words = std::fs::read(dir.path().join(TOTALS)).expect("counted");
        let lost = plan::numbers::Totals(Words::of(&words)).get(Total::LogLineDropped);
        assert!(lost > 0);
        assert_eq!(lines + lost, 100);
    }
}
