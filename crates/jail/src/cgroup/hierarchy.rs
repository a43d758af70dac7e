//! Where the machine keeps its cgroups.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::JailError;

/// What is mounted; found once per process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hierarchies {
    /// Several, each with its controllers; also on machines that mount version 2 beside them
    /// without giving it a controller ("hybrid"). `others` are those that we do not join.
    V1 {
        joined: Vec<Hierarchy>,
        others: Vec<PathBuf>,
    },
    /// One.
    V2(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) controllers: Vec<String>,
    pub(super) root: PathBuf,
}

/// The controllers of version 1 in which a container has a directory. `devices`, the network
/// classes and `perf_event` have nothing to say about a wasm container; `name=systemd` is joined
/// so that systemd does not count the container to containerd's service.
const JOINED: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "freezer",
];
const SYSTEMD: &str = "name=systemd";

pub(super) fn find() -> Result<&'static Hierarchies, JailError> {
    static FOUND: OnceLock<Option<Hierarchies>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            fs::read_to_string("/proc/self/mountinfo")
                .ok()
                .and_then(|table| parse(&table))
        })
        .as_ref()
        .ok_or(JailError::NoCgroups)
}

fn parse(mountinfo: &str) -> Option<Hierarchies> {
    let (mut v1, mut others, mut v2) = (Vec::new(), Vec::new(), None);
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let Some(at) = mount.split(' ').nth(4) else {
            continue;
        };
        let mut filesystem = filesystem.split(' ');
        match filesystem.next() {
            Some("cgroup2") if v2.is_none() => v2 = Some(PathBuf::from(at)),
            Some("cgroup") => {
                let controllers: Vec<String> = filesystem
                    .nth(1)
                    .unwrap_or_default()
                    .split(',')
                    .filter(|option| JOINED.contains(option) || *option == SYSTEMD)
                    .map(str::to_owned)
                    .collect();
                let known = |one: &Hierarchy| one.controllers == controllers;
                if controllers.is_empty() {
                    others.push(PathBuf::from(at));
                } else if !v1.iter().any(known) {
                    v1.push(Hierarchy {
                        controllers,
                        root: PathBuf::from(at),
                    });
                }
            }
            _ => {}
        }
    }
    if v1
        .iter()
        .any(|one: &Hierarchy| one.controllers.iter().any(|name| name != SYSTEMD))
    {
        return Some(Hierarchies::V1 { joined: v1, others });
    }
    v2.map(Hierarchies::V2)
}

/// `slice:prefix:name` as the path that systemd gives it: `a-b.slice` lies in `a.slice`
/// (systemd.slice(5)).
pub(crate) fn expand(name: &str) -> String {
    let mut parts = name.splitn(3, ':');
    let (slice, prefix, unit) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let mut path = String::new();
    let stem = slice.trim_end_matches(".slice");
    // `-.slice` is the root itself.
    if stem != "-" {
        for (at, _) in stem.match_indices('-') {
            path.push_str(&format!("/{}.slice", &stem[..at]));
        }
        path.push_str(&format!("/{stem}.slice"));
    }
    let unit = match (prefix, unit) {
        (_, unit) if unit.ends_with(".slice") => unit.to_owned(),
        ("", unit) => format!("{unit}.scope"),
        (prefix, unit) => format!("{prefix}-{unit}.scope"),
    };
    format!("{path}/{unit}")
}

/// Makes the directory and what is missing above it.
pub(super) fn make_v1(controllers: &[String], directory: &Path) -> Result<(), JailError> {
    let cpuset = controllers.iter().any(|name| name == "cpuset");
    // Mostly the pod's directory is there already.
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(parent) = directory.parent() {
                make_v1(controllers, parent)?;
            }
            make(directory)?;
        }
        Err(error) => exists(directory, error)?,
    }
    if cpuset {
        // Without processors and memory nodes nothing can be put into it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(directory, file)?;
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), JailError> {
    fs::create_dir(directory).or_else(|error| exists(directory, error))
}

fn exists(directory: &Path, error: std::io::Error) -> Result<(), JailError> {
    match error.kind() {
        ErrorKind::AlreadyExists => Ok(()),
        _ => Err(JailError::Cgroup {
            attempt: "make",
            path: directory.to_owned(),
            source: error,
        }),
    }
}

/// Gives a directory what the one above it has, unless it has its own. The one above it may be empty too: whoever
/// makes it at this moment has not come so far yet.
fn inherit(directory: &Path, file: &str) -> Result<String, JailError> {
    let path = directory.join(file);
    let own = fs::read_to_string(&path).map_err(|source| JailError::Cgroup {
        attempt: "read",
        path: path.clone(),
        source,
    })?;
    if !own.trim().is_empty() {
        return Ok(own);
    }
    let above = match directory.parent() {
        Some(parent) if parent.join(file).exists() => inherit(parent, file)?,
        // The root of a hierarchy is never empty.
        _ => return Ok(own),
    };
    super::write(&path, above.trim())?;
    Ok(above)
}

/// Makes the directory, and lets every controller that the machine has reach down to it.
pub(super) fn make_v2(directory: &Path) -> Result<(), JailError> {
    let Hierarchies::V2(root) = find()? else {
        return Err(JailError::NoCgroups);
    };
    let below = directory.strip_prefix(root).unwrap_or(Path::new(""));
    let mut at = root.clone();
    for name in below {
        delegate(&at);
        at.push(name);
        make(&at)?;
    }
    Ok(())
}

/// One after the other: one that cannot (processes in between, a controller in use by version 1)
/// must not keep the others off. What is missing in the end shows when its limit is set.
fn delegate(directory: &Path) {
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    for controller in available.split_whitespace() {
        if !enabled.split_whitespace().any(|one| one == controller) {
            let _ = fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_found_beside_version_2() {
        let table = "\
24 1 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro
25 24 0:23 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw
26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
27 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 24 0:26 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
29 24 0:25 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
";
        let Some(Hierarchies::V1 {
            joined: found,
            others,
        }) = parse(table)
        else {
            panic!("version 1 is there")
        };
        assert_eq!(others, [Path::new("/sys/fs/cgroup/devices")]);
        let shown: Vec<_> = found
            .iter()
            .map(|one| (one.controllers.join(","), one.root.display().to_string()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "name=systemd".to_owned(),
                    "/sys/fs/cgroup/systemd".to_owned()
                ),
                (
                    "cpu,cpuacct".to_owned(),
                    "/sys/fs/cgroup/cpu,cpuacct".to_owned()
                )
            ]
        );
    }

    #[test]
    fn processors_come_down_through_a_directory_that_is_just_being_made() {
        let root = tempfile::tempdir().expect("temporary directory");
        let (pod, container) = (root.path().join("pod"), root.path().join("pod/container"));
        fs::create_dir_all(&container).expect("made");
        let file = |directory: &Path| directory.join("cpuset.cpus");
        fs::write(file(root.path()), "0-1\n").expect("written");
        for empty in [&pod, &container] {
            fs::write(file(empty), "\n").expect("written");
        }
        inherit(&container, "cpuset.cpus").expect("inherited");
        for directory in [&pod, &container] {
            let cpus = fs::read_to_string(file(directory)).expect("readable");
            assert_eq!(cpus.trim(), "0-1", "{}", directory.display());
        }
    }

    #[test]
    fn version_2_alone() {
        let table = "25 24 0:23 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse(table), Some(Hierarchies::V2("/sys/fs/cgroup".into())));
        assert_eq!(parse("24 1 0:22 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn names_of_systemd_are_paths() {
        for (name, path) in [
            (
                "kubepods-besteffort-pod1.slice:cri-containerd:c1",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-c1.scope",
            ),
            (":runc:c1", "/system.slice/runc-c1.scope"),
            ("-.slice::c1", "/c1.scope"),
        ] {
            assert_eq!(expand(name), path, "{name}");
        }
    }
}
