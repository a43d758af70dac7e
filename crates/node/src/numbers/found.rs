//! Which containers there are, by the records that the shim keeps of them (`crates/shim/src/record.rs`), and what each has
//! used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use plan::numbers::{Counted, Labels, PAGE, Page, Role, Words};
use serde::Deserialize;

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
    let mut found: BTreeMap<Name, (u64, Container)> = BTreeMap::new();
    let mut supervisors = BTreeSet::new();
    for namespace in list(run) {
        for entry in list(&namespace.path()) {
            let dir = entry.path();
            // What has gone since it was listed, or is not made yet, is none.
            let Some(record) = record(&dir) else { continue };
            supervisors.insert(record.supervisor);
            let labels = &record.labels;
            let name = if labels.has_pod() {
                Name {
                    namespace: labels.namespace.clone(),
                    pod: labels.pod.clone(),
                    container: labels.container.clone(),
                }
            } else {
                Name {
                    namespace: text(&namespace),
                    pod: String::new(),
                    container: text(&entry),
                }
            };
            let age = record.start_time;
            if found.get(&name).is_none_or(|(other, _)| *other <= age) {
                let container = Container::read(name.clone(), &record, &dir, root);
                found.insert(name, (age, container));
            }
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

fn record(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join("record.json")).ok()?).ok()
}

fn text(entry: &fs::DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

impl Container {
    fn read(name: Name, record: &Record, dir: &Path, root: &Path) -> Self {
        let role = match record {
            Record { native: true, .. } => Role::Native,
            Record { labels, .. } if labels.holder => Role::Pod,
            Record { .. } => Role::Wasm,
        };
        let page = (role == Role::Wasm)
            .then(|| fs::read(dir.join(PAGE)).ok())
            .flatten();
        let used = Used::of(&record.counted, root);
        Self {
            name,
            role,
            memory: used.memory,
            memory_limit: used.limit,
            cpu: used.cpu,
            page: page.map(|bytes| Page(Words::of(&bytes))),
        }
    }
}

/// What the kernel counts.
struct Used {
    memory: Option<u64>,
    limit: Option<u64>,
    cpu: Option<f64>,
}

/// Version 1 writes the largest number of pages where there is no limit.
const UNLIMITED: u64 = 1 << 62;

impl Used {
    fn of(counted: &Counted, root: &Path) -> Self {
        let file = |dir: &Option<PathBuf>, name: &str| {
            let below = dir.as_ref()?.strip_prefix("/").ok()?;
            fs::read_to_string(root.join(below).join(name)).ok()
        };
        let number = |dir, name| file(dir, name)?.trim().parse::<u64>().ok();
        let Counted { memory, cpu } = counted;
        // Of version 2 all controllers have one directory.
        if memory == cpu {
            let stat = file(cpu, "cpu.stat");
            let micros = stat.as_deref().and_then(|stat| {
                let line = stat
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "));
                line?.trim().parse::<u64>().ok()
            });
            return Self {
                memory: number(memory, "memory.current"),
                // `max` is no number.
                limit: number(memory, "memory.max"),
                cpu: micros.map(|micros| micros as f64 / 1e6),
            };
        }
        Self {
            memory: number(memory, "memory.usage_in_bytes"),
            limit: number(memory, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
            cpu: number(cpu, "cpuacct.usage").map(|nanos| nanos as f64 / 1e9),
        }
    }
}

/// When a process started.
fn start_time(proc: &Path, pid: i32) -> Option<u64> {
    plan::start_time(&fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?)
}
