use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::scratch::Scratch;

pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// Where containerd has the sockets of its shims, unless told.
const SOCKETS: &str = "/run/containerd/s";

/// What is left in the world of some containers: all lists are empty when the shim has cleaned up.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Leftovers {
    /// Processes (other than containerd) that carry the tag in their arguments, environment or cgroup: pid and arguments.
    pub processes: Vec<String>,
    /// Mount points below the scratch directory.
    pub mounts: Vec<PathBuf>,
    /// Cgroups, in whatever hierarchy, of the containers.
    pub cgroups: Vec<PathBuf>,
    /// Sockets and files outside of the scratch directory that are named after a container.
    pub files: Vec<PathBuf>,
}

impl Leftovers {
    /// Looks for what carries the tag of `scratch`, or the id of a container that was noted there. The containerd of
    /// this pid does not count.
    pub(crate) fn find(scratch: &Scratch, containerd: Option<u32>) -> Self {
        let (tag, ids) = (scratch.tag(), ids_in(scratch.dir()));
        let spared = containerd.map(u32::cast_signed);
        let mut marks = vec![tag];
        marks.extend(ids.iter().map(|(_, id)| id.as_str()));
        let parent = format!("sampan-{tag}");
        Self {
            processes: processes_of(tag)
                .into_iter()
                .filter(|pid| Some(*pid) != spared)
                .map(|pid| format!("{pid} {}", arguments(pid)))
                .collect(),
            mounts: mounts_of(tag),
            cgroups: cgroups_of(&marks)
                .into_iter()
                .filter(|path| !ours(path, &parent))
                .collect(),
            files: files_of(tag, &scratch.socket(), &ids)
                .into_iter()
                .chain(grandchildren(&scratch.dir().join("sampan")))
                .chain(bundles(scratch.dir()))
                .collect(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for process in &self.processes {
            writeln!(out, "process {process}")?;
        }
        for (kind, paths) in [
            ("mount", &self.mounts),
            ("cgroup", &self.cgroups),
            ("file", &self.files),
        ] {
            for path in paths {
                writeln!(out, "{kind} {}", path.display())?;
            }
        }
        Ok(())
    }
}

/// Whether a cgroup is the harness's own: the parent of all, or that of a pod, which the kubelet would make and remove.
fn ours(cgroup: &Path, parent: &str) -> bool {
    let is_pod = cgroup
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(b"pod-"));
    cgroup.ends_with(parent)
        || (is_pod && cgroup.parent().is_some_and(|above| above.ends_with(parent)))
}

/// Notes a container's id in the scratch directory, where even the sweeper of a killed test finds it.
pub(crate) fn note_id(dir: &Path, namespace: &str, id: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("ids"))?;
    // One write, so that those of parallel containers do not mix.
    file.write_all(format!("{namespace} {id}\n").as_bytes())
}

/// The bundles of containers, and of pods that the shim makes.
fn bundles(dir: &Path) -> Vec<PathBuf> {
    let of = |plugin| grandchildren(&dir.join("state").join(plugin));
    let mut all = of("io.containerd.runtime.v2.task");
    all.extend(of("io.containerd.sandbox.controller.v1.shim"));
    all
}

/// Containerd namespace and id of every container that has a bundle: also of those that nobody could note, since the
/// test was killed while they were made.
pub(crate) fn ids_of_bundles(dir: &Path) -> Vec<(String, String)> {
    bundles(dir)
        .iter()
        .filter_map(|bundle| {
            let namespace = bundle.parent()?.file_name()?.to_str()?;
            Some((
                namespace.to_owned(),
                bundle.file_name()?.to_str()?.to_owned(),
            ))
        })
        .collect()
}

/// Containerd namespace and id of the containers that were noted.
pub(crate) fn ids_in(dir: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(dir.join("ids")).unwrap_or_default();
    let pair = |line: &str| {
        line.split_once(' ')
            .map(|(namespace, id)| (namespace.to_owned(), id.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// Living processes whose arguments, environment or cgroup name the tag.
pub(crate) fn processes_of(tag: &str) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let names = |pid: i32, file: &str| {
        fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|content| {
            content
                .windows(tag.len())
                .any(|window| window == tag.as_bytes())
        })
    };
    pids()
        .filter(|pid| *pid != own && alive(*pid))
        .filter(|pid| names(*pid, "cmdline") || names(*pid, "environ") || names(*pid, "cgroup"))
        .collect()
}

/// Every process with its parent.
pub(crate) fn parents() -> Vec<(i32, i32)> {
    pids()
        .filter_map(|pid| Some((pid, state(pid)?.1)))
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn alive(pid: i32) -> bool {
    state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent of a process.
fn state(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything, even parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The command line of a process, joined by spaces; empty if there is none.
pub(crate) fn arguments(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// Mount points whose path names the tag, in the order in which they were mounted.
pub(crate) fn mounts_of(tag: &str) -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.contains(tag))
        .map(PathBuf::from)
        .collect()
}

/// Cgroup directories of every hierarchy whose own name contains a mark.
pub(crate) fn cgroups_of(marks: &[&str]) -> Vec<PathBuf> {
    fn walk(dir: &Path, inside: bool, marks: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let inside = inside || marks.iter().any(|mark| name.contains(mark));
                if inside {
                    found.push(entry.path());
                }
                walk(&entry.path(), inside, marks, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new(CGROUPS), false, marks, &mut found);
    found
}

/// The sockets that shims of these containers listen on. The name is the rule of containerd's shim library, for Go and
/// for Rust: the hash of containerd's address, the namespace and the id.
fn sockets(address: &Path, ids: &[(String, String)]) -> Vec<PathBuf> {
    ids.iter()
        .map(|(namespace, id)| address.join(namespace).join(id))
        // Go's shims listen on a second one where containerd logs at debug level.
        .flat_map(|path| [path.join("debug"), path])
        .map(|path| hex::encode(Sha256::digest(path.as_os_str().as_bytes())))
        .map(|name| Path::new(SOCKETS).join(name))
        .chain(told_sockets(address))
        .filter(|path| path.exists())
        .collect()
}

/// Those that supervisors have told of in the log of the containerd with this address: that of a supervisor for a node is
/// named after more than can be known here.
fn told_sockets(address: &Path) -> BTreeSet<PathBuf> {
    let log = fs::read(address.with_file_name("containerd.log")).unwrap_or_default();
    String::from_utf8_lossy(&log)
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("socket="))
        .map(PathBuf::from)
        .filter(|path| path.starts_with(SOCKETS))
        .collect()
}

/// What lies in the directories of a directory: the shim's and containerd's own keep one for each containerd namespace,
/// which stays, and in it one for each container, which must not.
fn grandchildren(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    list(dir)
        .flat_map(|entry| list(&entry.path()).map(|entry| entry.path()))
        .collect()
}

/// Sockets of shims, and whatever is named after a test or container below the directories that a shim or a network
/// plugin may use.
pub(crate) fn files_of(tag: &str, address: &Path, ids: &[(String, String)]) -> Vec<PathBuf> {
    fn walk(dir: &Path, depth: u32, marks: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if marks
                .iter()
                .any(|mark| name.to_string_lossy().contains(mark))
            {
                found.push(entry.path());
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), depth - 1, marks, found);
            }
        }
    }
    let mut marks = vec![tag];
    marks.extend(ids.iter().map(|(_, id)| id.as_str()));
    let mut found = sockets(address, ids);
    for dir in [
        "/run/sampan",
        "/run/containerd/runc",
        "/run/runc",
        "/run/youki",
        "/run/netns",
        "/var/lib/cni",
    ] {
        walk(Path::new(dir), 3, &marks, &mut found);
    }
    found
}
