//! containerd's process, by what /proc says of it. Process ids are the host's: the pod shares its namespace.
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::settings::Restart;

/// Programs that start containerd again when it has ended, by the names of their processes.
const SUPERVISORS: &[&str] = &[
    "k3s",
    "k3s-agent",
    "k3s-server",
    "rke2",
    "k0s",
    "runsv",
    "s6-supervise",
    "supervise-daemo",
    "supervisord",
];

/// A process that has been found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its arguments, the program's own name first.
    pub arguments: Vec<String>,
    /// When it started, in the kernel's ticks: a process that gets the same id later has another.
    started: u64,
}

impl Process {
    /// The process of this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<Self> {
        let line = fs::read(format!("/proc/{pid}/cmdline"))
            .with_context(|| format!("read the arguments of process {pid}"))?;
        let arguments = line
            .split(|byte| *byte == 0)
            .filter(|argument| !argument.is_empty())
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        let started = started(pid).with_context(|| format!("find process {pid}"))?;
        Ok(Self {
            pid,
            arguments,
            started,
        })
    }

    /// The configuration that its arguments name, as an absolute path.
    #[must_use]
    pub fn config(&self) -> Option<PathBuf> {
        let mut arguments = self.arguments.iter().skip(1);
        while let Some(argument) = arguments.next() {
            let name = argument.trim_start_matches('-');
            if name.len() == argument.len() {
                // A command follows; what stands behind it is its own.
                return None;
            }
            let value = match name.split_once('=') {
                Some(("c" | "config", value)) => Some(value.to_owned()),
                None if matches!(name, "c" | "config") => arguments.next().cloned(),
                None if matches!(name, "a" | "address" | "l" | "log-level" | "root" | "state") => {
                    arguments.next();
                    None
                }
                _ => None,
            };
            if let Some(value) = value {
                let path = PathBuf::from(value);
                if path.is_absolute() {
                    return Some(path);
                }
                let cwd = fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()?;
                return Some(cwd.join(path));
            }
        }
        None
    }

    /// A variable of the environment that it was started with.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let all = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        all.split(|byte| *byte == 0)
            .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }

    /// Who starts it again: the unit of systemd whose cgroup it is in, or its parent if that is known to.
    #[must_use]
    pub fn supervisor(&self, host: &Host) -> Restart {
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        if host.exists(Path::new("/run/systemd/system"))
            && let Some(unit) = unit(&cgroups)
        {
            return Restart::Systemd(unit);
        }
        let parent =
            parent(self.pid).and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        match parent {
            Some(name) if SUPERVISORS.contains(&name.trim()) => Restart::Signal,
            // Nobody is known to start it again, and to end it then would break the node.
            _ => Restart::None,
        }
    }

    /// Whether it runs still.
    #[must_use]
    pub fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When the kernel refuses; that it has ended is fine.
    pub fn terminate(&self) -> Result<()> {
        if !self.runs() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("send SIGTERM to process {}", self.pid))
            }
        }
    }
}

/// The unit that a process belongs to: the last part of a path of its cgroup that names a service.
fn unit(cgroups: &str) -> Option<String> {
    cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .find_map(|path| {
            let name = path
                .rsplit('/')
                .find(|part| part.strip_suffix(".service").is_some())?;
            Some(name.strip_suffix(".service")?.to_owned())
        })
}

/// State, parent and start of a process: the fields behind its name, which may contain anything.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn started(pid: u32) -> Option<u64> {
    let fields = fields(pid)?;
    // A process that has ended and that nobody has asked about does not run.
    if matches!(fields.first()?.as_str(), "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn parent(pid: u32) -> Option<u32> {
    fields(pid)?.get(1)?.parse().ok()
}

/// Whether a process executes a file that lies in this directory. Files are compared by device and inode, since another
/// mount namespace may know them by another path.
#[must_use]
pub fn below(dir: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let files: Vec<(u64, u64)> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| id(&entry.path()))
        .collect();
    if files.is_empty() {
        return false;
    }
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter_map(|entry| id(&entry.path().join("exe")))
        .any(|exe| files.contains(&exe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Option<String> {
        let process = Process {
            pid: std::process::id(),
            arguments: line.split(' ').map(str::to_owned).collect(),
            started: 0,
        };
        process.config().map(|path| path.display().to_string())
    }

    #[test]
    fn the_configuration_is_what_the_arguments_say() {
        for line in [
            "containerd -c /x.toml",
            "containerd --config /x.toml --root /r",
            "containerd --log-level debug --config=/x.toml",
            "containerd -c /x.toml -a /run/k3s/containerd/containerd.sock --state /s --root /r",
            "containerd --address /a -c=/x.toml",
        ] {
            assert_eq!(told(line).as_deref(), Some("/x.toml"), "{line}");
        }
        assert_eq!(told("containerd"), None);
        assert_eq!(told("containerd config dump -c /x.toml"), None);
        let here = std::env::current_dir().expect("a directory").join("x.toml");
        assert_eq!(
            told("containerd -c x.toml"),
            Some(here.display().to_string())
        );
    }

    #[test]
    fn the_unit_is_the_last_service_of_the_cgroup() {
        for (cgroups, name) in [
            ("0::/system.slice/containerd.service\n", Some("containerd")),
            (
                "12:pids:/\n1:name=systemd:/system.slice/k3s.service\n",
                Some("k3s"),
            ),
            (
                "0::/../../system.slice/snap.microk8s.daemon-containerd.service\n",
                Some("snap.microk8s.daemon-containerd"),
            ),
            (
                "0::/kubelet.slice/x.service/system.slice/containerd.service/sub\n",
                Some("containerd"),
            ),
            ("0::/user.slice\n", None),
        ] {
            assert_eq!(unit(cgroups).as_deref(), name, "{cgroups}");
        }
    }

    #[test]
    fn a_running_program_is_found_by_its_file() {
        let own = std::env::current_exe().expect("this test");
        assert!(below(own.parent().expect("in a directory")));
        let other = tempfile::tempdir().expect("a directory");
        fs::write(other.path().join("file"), "").expect("write");
        assert!(!below(other.path()));
        let process = Process::of(std::process::id()).expect("this process");
        assert!(process.runs() && !process.arguments.is_empty());
    }
}
