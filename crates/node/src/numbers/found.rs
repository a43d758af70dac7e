//! Which containers there are, by the records that the shim keeps of them (`crates/shim/src/record.rs`), and what each has
//! used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use plan::numbers::{Counted, Labels, PAGE, Page, Role, Words};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use serde::Deserialize;

/// No more threads than these ask the kernel at once.
const THREADS: usize = 4;

/// A container and its numbers.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: Name,
    pub(super) role: Role,
    /// Bytes that the kernel counts.
    pub(super) memory: Option<u64>,
    /// Bytes that it may have.
    pub(super) memory_limit: Option<u64>,
    /// Seconds on processors.
    pub(super) cpu: Option<f64>,
    /// What its runner has counted, while it runs.
    pub(super) page: Option<Page>,
}

/// What its series are called. No two containers of a node have the same name at once but for the moment in which one
/// takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Kubernetes' namespace; of a container that is in no pod containerd's.
    pub(super) namespace: String,
    /// Empty for a container that is in no pod.
    pub(super) pod: String,
    /// The container's name; of one that is in no pod its id. Empty for the pod's own.
    pub(super) container: String,
}

/// What is read of a record. A newer shim may write more.
#[derive(Debug, Deserialize)]
struct Record {
    start_time: u64,
    native: bool,
    #[serde(default)]
    supervisor: Incarnation,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    counted: Counted,
}

/// A process, which no other is after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Incarnation {
    pid: i32,
    start_time: u64,
}

/// All containers, and how many of their supervisors live and do not.
pub(super) fn find(run: &Path, root: &Path, proc: &Path) -> (Vec<Container>, [u64; 2]) {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs: Vec<PathBuf> = list(run)
        .flat_map(|namespace| list(&namespace.path()).map(|entry| entry.path()))
        .collect();
    let mut found: BTreeMap<Name, (u64, Container)> = BTreeMap::new();
    let mut supervisors = BTreeSet::new();
    for (record, container) in read(&dirs, root) {
        supervisors.insert(record.supervisor);
        let age = record.start_time;
        let other = found.get(&container.name);
        if other.is_none_or(|(other, _)| *other <= age) {
            found.insert(container.name.clone(), (age, container));
        }
    }
    let alive = supervisors
        .iter()
        .filter(|one| start_time(proc, one.pid) == Some(one.start_time))
        .count() as u64;
    let containers = found.into_values().map(|(_, container)| container);
    (
        containers.collect(),
        [alive, supervisors.len() as u64 - alive],
    )
}

/// The containers of these directories, in their order. The kernel takes its time for each of some small files, so
/// several threads ask it.
fn read(dirs: &[PathBuf], root: &Path) -> Vec<(Record, Container)> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = dirs.len().div_ceil(threads.min(THREADS)).max(1);
    let some = |share: &[PathBuf]| {
        let mut files = Files::default();
        let all = share.iter();
        all.filter_map(|dir| one(dir, root, &mut files))
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let begun: Vec<_> = dirs
            .chunks(share)
            .map(|share| scope.spawn(move || some(share)))
            .collect();
        begun
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|why| resume_unwind(why)))
            .collect()
    })
}

/// What has gone since it was listed, or is not made yet, is none.
fn one(dir: &Path, root: &Path, files: &mut Files) -> Option<(Record, Container)> {
    let record = files.read(&dir.join("record.json"))?;
    let record: Record = serde_json::from_slice(record).ok()?;
    let role = match &record {
        Record { native: true, .. } => Role::Native,
        Record { labels, .. } if labels.holder => Role::Pod,
        Record { .. } => Role::Wasm,
    };
    let page = (role == Role::Wasm)
        .then(|| files.read(&dir.join(PAGE)))
        .flatten()
        .map(|bytes| Page(Words::of(bytes)));
    let used = match role {
        // It runs nothing.
        Role::Pod => Used::default(),
        Role::Wasm | Role::Native => Used::of(&record.counted, root, files),
    };
    let container = Container {
        name: Name::of(&record.labels, dir)?,
        role,
        memory: used.memory,
        memory_limit: used.limit,
        cpu: used.cpu,
        page,
    };
    Some((record, container))
}

impl Name {
    /// Of the container whose directory that is: `NAMESPACE/ID`, both containerd's.
    fn of(labels: &Labels, dir: &Path) -> Option<Self> {
        if labels.has_pod() {
            return Some(Self {
                namespace: labels.namespace.clone(),
                pod: labels.pod.clone(),
                container: labels.container.clone(),
            });
        }
        let text = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
        Some(Self {
            namespace: text(dir.parent()?)?,
            pod: String::new(),
            container: text(dir)?,
        })
    }
}

/// What the kernel counts.
#[derive(Default)]
struct Used {
    memory: Option<u64>,
    limit: Option<u64>,
    cpu: Option<f64>,
}

/// Version 1 writes the largest number of pages where there is no limit.
const UNLIMITED: u64 = 1 << 62;

impl Used {
    fn of(counted: &Counted, root: &Path, files: &mut Files) -> Self {
        let file = |dir: &Option<PathBuf>, name: &str| {
            let below = dir.as_ref()?.strip_prefix("/").ok()?;
            Some(root.join(below).join(name))
        };
        let Counted { memory, cpu } = counted;
        // Of version 2 all controllers have one directory.
        if memory == cpu {
            let micros = files.text(file(cpu, "cpu.stat")).and_then(|stat| {
                let line = stat
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "));
                line?.trim().parse::<u64>().ok()
            });
            return Self {
                memory: files.number(file(memory, "memory.current")),
                // `max` is no number.
                limit: files.number(file(memory, "memory.max")),
                cpu: micros.map(|micros| micros as f64 / 1e6),
            };
        }
        let limit = files.number(file(memory, "memory.limit_in_bytes"));
        let nanos = files.number(file(cpu, "cpuacct.usage"));
        Self {
            memory: files.number(file(memory, "memory.usage_in_bytes")),
            limit: limit.filter(|limit| *limit < UNLIMITED),
            cpu: nanos.map(|nanos| nanos as f64 / 1e9),
        }
    }
}

/// Reads small files into the same room, by three system calls for each where [`fs::read`] takes six.
#[derive(Default)]
struct Files {
    room: Vec<u8>,
}

impl Files {
    /// Longer than nearly all.
    const ROOM: usize = 8 << 10;

    fn read(&mut self, path: &Path) -> Option<&[u8]> {
        let file = open(path, OFlags::CLOEXEC, Mode::empty()).ok()?;
        self.room.clear();
        loop {
            self.room.reserve(Self::ROOM);
            let room = self.room.capacity() - self.room.len();
            // The last part is the one that leaves room.
            if rustix::io::read(&file, spare_capacity(&mut self.room)).ok()? < room {
                return Some(&self.room);
            }
        }
    }

    fn text(&mut self, path: Option<PathBuf>) -> Option<&str> {
        str::from_utf8(self.read(&path?)?).ok()
    }

    fn number(&mut self, path: Option<PathBuf>) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }
}

/// When a process started.
fn start_time(proc: &Path, pid: i32) -> Option<u64> {
    plan::start_time(&fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?)
}
