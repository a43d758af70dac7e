//! What `delete` needs after the supervisor died, on disk: a directory for each container below
//! the node's run directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plan::numbers::{Counted, Labels};
use serde::{Deserialize, Serialize};

/// A container's directory, `<run>/<namespace>/<id>`.
#[derive(Debug, Clone)]
pub(crate) struct RunDir(PathBuf);

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its process; 0 while there is none.
    pub(crate) pid: i32,
    /// When that process started (field 22 of `/proc/PID/stat`, clock ticks since boot), so
    /// that a number that was given to another process is not taken for it.
    pub(crate) start_time: u64,
    /// `linux.cgroupsPath`.
    pub(crate) cgroup: String,
    /// Whether systemd manages that cgroup.
    pub(crate) systemd: bool,
    /// Whether libcontainer made the container.
    pub(crate) native: bool,
    /// Its supervisor; unknown in the record of an older shim.
    #[serde(default)]
    pub(crate) supervisor: Incarnation,
    /// Its bundle; unknown in the record of an older shim.
    #[serde(default)]
    pub(crate) bundle: Option<PathBuf>,
    /// Whose numbers are counted there, for the node program.
    #[serde(default)]
    pub(crate) labels: Labels,
    /// Where the kernel counts, likewise.
    #[serde(default)]
    pub(crate) counted: Counted,
}

impl Record {
    /// Whether the supervisor that made the container is no more; another may listen where it did.
    pub(crate) fn is_orphaned(&self) -> bool {
        start_time(self.supervisor.pid) != Some(self.supervisor.start_time)
    }
}

/// A supervisor's process, which no other is after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Incarnation {
    pid: i32,
    start_time: u64,
}

impl Incarnation {
    pub(crate) const UNKNOWN: Self = Self {
        pid: 0,
        start_time: 0,
    };

    /// This process.
    pub(crate) fn this() -> Self {
        let pid = nix::unistd::getpid().as_raw();
        Self {
            pid,
            start_time: start_time(pid).unwrap_or(0),
        }
    }
}

const RECORD: &str = "record.json";
/// How often the namespace's directory may vanish between its making and that of the container's. Each time another
/// container's end must fall into some microseconds.
const ATTEMPTS: u32 = 1000;

impl RunDir {
    pub(crate) fn new(run: &Path, namespace: &str, id: &str) -> Self {
        Self(run.join(namespace).join(id))
    }

    /// Makes the directory, or takes an old one over.
    pub(crate) fn create(&self) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        // Another supervisor may remove the namespace's directory, when it is empty, between any two of our steps.
        let vanished = [io::ErrorKind::NotFound, io::ErrorKind::AlreadyExists];
        let mut attempts = 0;
        loop {
            match fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)
            {
                Err(error) if vanished.contains(&error.kind()) && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                done => return done,
            }
        }
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where libcontainer keeps its state.
    pub(crate) fn native(&self) -> PathBuf {
        self.0.join("native")
    }

    /// Where a pod's files are, if we keep them.
    pub(crate) fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Replaces the record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let temporary = self.0.join("record.tmp");
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        fs::rename(temporary, self.0.join(RECORD))
    }

    /// The record, if one was written.
    pub(crate) fn read(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.0.join(RECORD)).ok()?).ok()
    }

    /// Locks the namespace's directory, until the file is dropped.
    pub(crate) fn lock(&self) -> io::Result<fs::File> {
        let namespace = fs::File::open(self.0.parent().unwrap_or(&self.0))?;
        namespace.lock()?;
        Ok(namespace)
    }

    /// The other containers of the same namespace that had this supervisor.
    pub(crate) fn others_of(&self, supervisor: Incarnation) -> Vec<(String, Self, Record)> {
        let beside = self
            .0
            .parent()
            .and_then(|namespace| fs::read_dir(namespace).ok());
        beside
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path() != self.0)
            .filter_map(|entry| {
                let dir = Self(entry.path());
                let record = dir.read()?;
                let id = entry.file_name().into_string().ok()?;
                (record.supervisor == supervisor).then_some((id, dir, record))
            })
            .collect()
    }

    /// Removes the directory, and the namespace's when it was the last.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Fails while other containers are there, as it should.
        if let Some(namespace) = self.0.parent() {
            let _ = fs::remove_dir(namespace);
        }
        Ok(())
    }
}

/// When a process started; `None` when there is none of that number, or it has ended and nobody has asked how.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    plan::start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    use super::*;

    #[test]
    fn a_record_survives_and_goes_with_its_directories() {
        let run = tempfile::tempdir().expect("temporary directory");
        let dir = RunDir::new(run.path(), "ns", "c1");
        assert_eq!(dir.read(), None);
        dir.create().expect("made");
        let record = Record {
            pid: 7,
            start_time: 9,
            cgroup: "/x".into(),
            systemd: false,
            native: false,
            supervisor: Incarnation::this(),
            bundle: None,
            labels: Labels::default(),
            counted: Counted::default(),
        };
        dir.write(&record).expect("written");
        assert!(!record.is_orphaned());
        assert_eq!(dir.read(), Some(record));
        dir.remove().expect("removed");
        dir.remove().expect("again");
        assert!(!run.path().join("ns").exists());
    }

    #[test]
    fn a_directory_is_made_while_others_remove_the_last() {
        let run = tempfile::tempdir().expect("temporary directory");
        let path = run.path();
        std::thread::scope(|scope| {
            for id in ["a", "b", "c", "d"] {
                scope.spawn(move || {
                    let dir = RunDir::new(path, "ns", id);
                    for _ in 0..200 {
                        dir.create().expect("made");
                        dir.remove().expect("removed");
                    }
                });
            }
        });
    }

    #[test]
    fn a_process_has_a_start_time() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(start_time(own).expect("this process") > 0);
        assert_eq!(start_time(-1), None);
        let mut child = std::process::Command::new("true").spawn().expect("spawned");
        let pid = i32::try_from(child.id()).expect("a pid");
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), ended).expect("it ends");
        assert_eq!(start_time(pid), None, "nobody has taken its status yet");
        child.wait().expect("waited for");
    }
}
