//! What a container has used: by its cgroup, whatever version and whoever made it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::top::guests::start_time;

/// What was used until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    at: Instant,
    /// Time on processors.
    cpu: Option<Duration>,
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Bytes; `None` without a limit.
    pub(super) memory_limit: Option<u64>,
    /// Seconds since its process started.
    pub(super) age: Option<u64>,
}

/// Where cgroups are mounted.
const MOUNTED: &str = "sys/fs/cgroup";
/// Version 1 writes the largest number of pages where there is no limit.
const UNLIMITED: u64 = 1 << 62;

impl Sample {
    /// Of the container of this process.
    pub(super) fn of(root: &Path, pid: i32) -> Self {
        let cgroups =
            std::fs::read_to_string(root.join(format!("proc/{pid}/cgroup"))).unwrap_or_default();
        let number = |path: Option<PathBuf>| -> Option<u64> {
            std::fs::read_to_string(path?).ok()?.trim().parse().ok()
        };
        let file = |controller: &str, name: &str| {
            directory(root, &cgroups, controller).map(|dir| dir.join(name))
        };
        let unified = root.join(MOUNTED).join("cgroup.controllers").exists();
        let (cpu, memory, limit) = if unified {
            let stat = file("", "cpu.stat").and_then(|path| std::fs::read_to_string(path).ok());
            let micros = stat.as_deref().and_then(|stat| {
                let line = stat
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "));
                line?.trim().parse().ok()
            });
            (
                micros.map(Duration::from_micros),
                number(file("", "memory.current")),
                // `max` is no number.
                number(file("", "memory.max")),
            )
        } else {
            (
                number(file("cpuacct", "cpuacct.usage")).map(Duration::from_nanos),
                number(file("memory", "memory.usage_in_bytes")),
                number(file("memory", "memory.limit_in_bytes")).filter(|limit| *limit < UNLIMITED),
            )
        };
        Self {
            at: Instant::now(),
            cpu,
            memory,
            memory_limit: limit,
            age: age(root, pid),
        }
    }

    /// Processors that were used since an earlier sample.
    pub(super) fn since(&self, earlier: &Self) -> Option<f64> {
        let time = self.at.duration_since(earlier.at).as_secs_f64();
        let used = self.cpu?.checked_sub(earlier.cpu?)?;
        (time > 0.0).then(|| used.as_secs_f64() / time)
    }
}

/// The directory of a controller's cgroup; of version 2 the one of the empty name (`cgroups(7)`, "/proc/[pid]/cgroup").
fn directory(root: &Path, cgroups: &str, controller: &str) -> Option<PathBuf> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found = controllers.split(',').any(|known| known == controller);
        let below = path.trim_start_matches('/');
        // Version 1 has each controller below its name, by a link where several are one.
        found.then(|| root.join(MOUNTED).join(controller).join(below))
    })
}

fn age(root: &Path, pid: i32) -> Option<u64> {
    let uptime = std::fs::read_to_string(root.join("proc/uptime")).ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let ticks = start_time(root, pid)?;
    let started = ticks / rustix::param::clock_ticks_per_second().max(1);
    Some((uptime as u64).saturating_sub(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::TempDir::new().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let second = tree(&[
            ("proc/5/cgroup", "0::/kubepods/pod1/c\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            (
                "sys/fs/cgroup/kubepods/pod1/c/cpu.stat",
                "usage_usec 1500000\nuser_usec 1\n",
            ),
            ("sys/fs/cgroup/kubepods/pod1/c/memory.current", "4096\n"),
            ("sys/fs/cgroup/kubepods/pod1/c/memory.max", "max\n"),
        ]);
        let sample = Sample::of(second.path(), 5);
        assert_eq!(sample.cpu, Some(Duration::from_millis(1500)));
        assert_eq!((sample.memory, sample.memory_limit), (Some(4096), None));
        let first = tree(&[
            (
                "proc/5/cgroup",
                "9:memory:/pod/c\n4:cpu,cpuacct:/pod/c\n1:name=systemd:/x\n0::/y\n",
            ),
            ("sys/fs/cgroup/cpuacct/pod/c/cpuacct.usage", "2000000000\n"),
            ("sys/fs/cgroup/memory/pod/c/memory.usage_in_bytes", "8192\n"),
            (
                "sys/fs/cgroup/memory/pod/c/memory.limit_in_bytes",
                "65536\n",
            ),
        ]);
        let sample = Sample::of(first.path(), 5);
        assert_eq!(sample.cpu, Some(Duration::from_secs(2)));
        assert_eq!(
            (sample.memory, sample.memory_limit),
            (Some(8192), Some(65536))
        );
        let none = Sample::of(first.path(), 6);
        assert_eq!((none.cpu, none.memory, none.age), (None, None, None));
    }

    #[test]
    fn processors_are_what_was_used_in_between() {
        let at = Instant::now();
        let sample = |seconds: u64, cpu: u64| Sample {
            at: at + Duration::from_secs(seconds),
            cpu: Some(Duration::from_millis(cpu)),
            memory: None,
            memory_limit: None,
            age: None,
        };
        let used = sample(2, 1500).since(&sample(0, 500)).expect("measured");
        assert!((used - 0.5).abs() < 1e-9, "{used}");
        // Another container in the place of the first.
        assert_eq!(sample(2, 100).since(&sample(0, 500)), None);
        assert_eq!(sample(0, 500).since(&sample(0, 500)), None);
    }
}
