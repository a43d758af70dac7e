//! A container's cgroup: version 1 (a directory in each hierarchy) and version 2 (one directory).
//!
//! The hot path (make, enter, remove) is written out here instead of taken from libcgroups, which
//! reads the mount table once per controller and attaches by `cgroup.procs`; see
//! [`Entrance::Tasks`] for what that costs.

mod crowd;
mod hierarchy;
mod limits;
mod oom;
mod statistics;
#[cfg_attr(not(feature = "native"), path = "cgroup/without_systemd.rs")]
mod systemd;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use plan::numbers::Counted;
use plan::{CgroupDriver, CgroupPlan};
use rustix::fs::{Mode, OFlags};

pub use crowd::Crowd;
pub use oom::OomWatch;
pub use statistics::{IoCount, Stats, StatsV1, StatsV2, UsageV1};

use crate::error::JailError;
use crate::patience::Patience;
use hierarchy::Hierarchies;
pub(crate) use hierarchy::expand;

/// A container's cgroup. Dropping it leaves it in place; [`Cgroup::remove`] takes it away.
#[derive(Debug)]
pub struct Cgroup {
    directories: Directories,
    /// systemd's name for it and the limits to give it, where systemd makes it.
    unit: Option<(String, LinuxResources)>,
}

#[derive(Debug)]
enum Directories {
    /// Controllers and directory, for each hierarchy that a container of ours is in; and the
    /// directories where libcontainer may have made more.
    V1 {
        joined: Vec<(Vec<String>, PathBuf)>,
        others: Vec<PathBuf>,
    },
    V2(PathBuf),
}

/// How a new process comes into its cgroup.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// Version 2: it is born there, at no cost.
    AtBirth(OwnedFd),
    /// Version 1: it writes itself into these, the `tasks` of every hierarchy. As a process of one
    /// thread that moves itself it need not take the lock for which every other way waits a grace
    /// period of all processors (5 to 10 ms; Linux 5.4, `cgroup_procs_write_start`).
    Tasks(Vec<OwnedFd>),
    /// systemd: it waits until the supervisor has asked for its scope.
    BySupervisor,
    /// Nowhere: it stays where the supervisor is.
    None,
}

impl Cgroup {
    /// Makes the cgroup, with its limits, and whatever is missing above it.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn create(plan: &CgroupPlan) -> Result<Self, JailError> {
        let cgroup = Self::open(plan)?;
        if cgroup.unit.is_some() {
            // systemd makes it for the first process.
            return Ok(cgroup);
        }
        let made = cgroup.make().and_then(|()| match &plan.resources {
            Some(resources) => cgroup.set(resources),
            None => Ok(()),
        });
        if let Err(error) = made {
            // What is half made is ours.
            let _ = cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// The cgroup of a plan, whether it exists or not; makes nothing.
    ///
    /// # Errors
    /// [`JailError::NoCgroups`].
    pub fn open(plan: &CgroupPlan) -> Result<Self, JailError> {
        let systemd = plan.driver == CgroupDriver::Systemd;
        let path = if systemd {
            expand(&plan.path)
        } else {
            plan.path.clone()
        };
        let below = path.trim_start_matches('/');
        let directories = match hierarchy::find()? {
            Hierarchies::V2(root) => Directories::V2(root.join(below)),
            Hierarchies::V1 { joined, others } => Directories::V1 {
                joined: joined
                    .iter()
                    .map(|one| (one.controllers.clone(), one.root.join(below)))
                    .collect(),
                others: others.iter().map(|root| root.join(below)).collect(),
            },
        };
        // On version 1 systemd keeps no limits of its own for a scope that it was not told of, and
        // libcgroups does not speak to it there either: the directories are where it would put them.
        let unit = (systemd
            && matches!(directories, Directories::V2(_))
            && Path::new("/run/systemd/system").exists())
        .then(|| {
            (
                plan.path.clone(),
                plan.resources.clone().unwrap_or_default(),
            )
        });
        Ok(Self { directories, unit })
    }

    /// Moves a process into it, from outside.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn add(&self, pid: i32) -> Result<(), JailError> {
        if let Some((unit, resources)) = &self.unit {
            return systemd::start_scope(unit, pid, resources);
        }
        for directory in self.all() {
            write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// How a child of ours gets in.
    pub(crate) fn entrance(&self) -> Result<Entrance, JailError> {
        if self.unit.is_some() {
            return Ok(Entrance::BySupervisor);
        }
        self.further_entrance()
    }

    /// How one more process gets in, where there is one already: systemd need not be asked again.
    pub(crate) fn further_entrance(&self) -> Result<Entrance, JailError> {
        let open = |path: PathBuf, flags: OFlags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
                JailError::Cgroup {
                    attempt: "open",
                    path,
                    source: errno.into(),
                }
            })
        };
        match &self.directories {
            Directories::V2(directory) => {
                open(directory.clone(), OFlags::PATH | OFlags::DIRECTORY).map(Entrance::AtBirth)
            }
            Directories::V1 { joined, .. } => joined
                .iter()
                .map(|(_, directory)| open(directory.join("tasks"), OFlags::WRONLY))
                .collect::<Result<Vec<_>, _>>()
                .map(Entrance::Tasks),
        }
    }

    /// The numbers of its processes, those of cgroups below it included, ascending. None if it
    /// does not exist.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn pids(&self) -> Result<Vec<i32>, JailError> {
        let mut pids = Vec::new();
        if let Some(directory) = self.counting() {
            collect(directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to every process in it.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] or [`JailError::System`].
    pub fn kill_all(&self, signal: i32) -> Result<(), JailError> {
        if signal == libc::SIGKILL
            && let Directories::V2(directory) = &self.directories
        {
            // One write that misses nobody (Linux 5.14).
            match fs::write(directory.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(error) if gone(&error) => {}
                Err(source) => {
                    return Err(JailError::Cgroup {
                        attempt: "write 1 to",
                        path: directory.join("cgroup.kill"),
                        source,
                    });
                }
            }
        }
        for pid in self.pids()? {
            // SAFETY: numbers alone. The process was in the cgroup a moment ago; nobody reuses a
            // number that fast.
            if unsafe { libc::kill(pid, signal) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ESRCH) {
                    return Err(JailError::System {
                        attempt: "send a signal to a process of the cgroup",
                        source: error,
                    });
                }
            }
        }
        Ok(())
    }

    /// What it has used and may use.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file that could not be read. One that does not exist, for
    /// a controller that is off, counts as zero.
    pub fn stats(&self) -> Result<Stats, JailError> {
        match &self.directories {
            Directories::V1 { joined, .. } => {
                statistics::v1(joined).map(|stats| Stats::V1(Box::new(stats)))
            }
            Directories::V2(directory) => {
                statistics::v2(directory).map(|stats| Stats::V2(Box::new(stats)))
            }
        }
    }

    /// Where the kernel counts what it uses.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            memory: self.with("memory").cloned(),
            cpu: self.with("cpuacct").or_else(|| self.with("cpu")).cloned(),
        }
    }

    /// Sets limits; what is not named stays as it is.
    ///
    /// Rules for devices are not among them: a wasm container has no device files, no mount where
    /// one would work (`nodev`) and no capability to make one. Native containers get theirs from
    /// libcontainer.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn set(&self, resources: &LinuxResources) -> Result<(), JailError> {
        if let Some((unit, _)) = &self.unit {
            return systemd::set(unit, resources);
        }
        match &self.directories {
            Directories::V1 { joined, .. } => limits::v1(joined, resources),
            Directories::V2(directory) => limits::v2(directory, resources),
        }
    }

    /// Stops its processes where they are, and returns when all of them stand.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    #[cfg(feature = "native")]
    pub async fn frozen(&self) -> Result<(), JailError> {
        asked_later(|| self.set_frozen(true)).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the file.
    pub fn thaw(&self) -> Result<(), JailError> {
        asked_again(|| self.set_frozen(false))
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), JailError> {
        let (file, word, answer, expected) = match &self.directories {
            Directories::V1 { .. } => {
                let Some(directory) = self.with("freezer") else {
                    return Err(JailError::NoCgroups);
                };
                let word = if frozen { "FROZEN" } else { "THAWED" };
                let file = directory.join("freezer.state");
                (file.clone(), word, file, word)
            }
            Directories::V2(directory) => {
                let events = if frozen { "frozen 1" } else { "frozen 0" };
                (
                    directory.join("cgroup.freeze"),
                    if frozen { "1" } else { "0" },
                    directory.join("cgroup.events"),
                    events,
                )
            }
        };
        write(&file, word)?;
        let text = fs::read_to_string(&answer).map_err(|source| JailError::Cgroup {
            attempt: "read",
            path: answer.clone(),
            source,
        })?;
        if text.lines().any(|line| line.trim() == expected) {
            return Ok(());
        }
        Err(JailError::Cgroup {
            attempt: "wait for",
            path: answer,
            source: ErrorKind::ResourceBusy.into(),
        })
    }

    /// Takes it away, killing what is left in it. That it does not exist is fine.
    ///
    /// Waits for the end of its processes, up to ten seconds.
    ///
    /// # Errors
    /// [`JailError::Cgroup`] naming the directory that stays.
    pub fn remove(&self) -> Result<(), JailError> {
        asked_again(|| self.try_remove())
    }

    /// [`Cgroup::remove`] for a process that has others to serve meanwhile.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "native")]
    pub async fn removed(&self) -> Result<(), JailError> {
        asked_later(|| self.try_remove()).await
    }

    /// Removes it if nothing is in it; else kills what is, which takes its time to end.
    fn try_remove(&self) -> Result<(), JailError> {
        let others = match &self.directories {
            Directories::V1 { others, .. } => others.as_slice(),
            Directories::V2(_) => &[],
        };
        for directory in self.all().into_iter().chain(others) {
            if let Err(source) = remove_tree(directory) {
                if source.kind() == ErrorKind::ResourceBusy {
                    // A frozen process cannot die.
                    let _ = self.set_frozen(false);
                    self.kill_all(libc::SIGKILL)?;
                }
                return Err(JailError::Cgroup {
                    attempt: "remove",
                    path: directory.clone(),
                    source,
                });
            }
        }
        Ok(())
    }

    fn make(&self) -> Result<(), JailError> {
        match &self.directories {
            Directories::V2(directory) => hierarchy::make_v2(directory),
            Directories::V1 { joined, .. } => {
                joined.iter().try_for_each(|(controllers, directory)| {
                    hierarchy::make_v1(controllers, directory)
                })
            }
        }
    }

    fn all(&self) -> Vec<&PathBuf> {
        match &self.directories {
            Directories::V1 { joined, .. } => {
                joined.iter().map(|(_, directory)| directory).collect()
            }
            Directories::V2(directory) => vec![directory],
        }
    }

    fn with(&self, controller: &str) -> Option<&PathBuf> {
        match &self.directories {
            Directories::V1 { joined, .. } => joined
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|one| one == controller))
                .map(|(_, directory)| directory),
            Directories::V2(directory) => Some(directory),
        }
    }

    /// The directory whose processes are counted: any will do, they are the same in all.
    fn counting(&self) -> Option<&PathBuf> {
        self.with("pids").or_else(|| self.all().into_iter().next())
    }
}

/// [`asked_again`] for a process that has others to serve meanwhile.
#[cfg(feature = "native")]
async fn asked_later(mut ask: impl FnMut() -> Result<(), JailError>) -> Result<(), JailError> {
    let mut patience = Patience::new();
    loop {
        match (ask(), patience.wait()) {
            (Err(error), Some(wait)) if error.is_busy() => tokio::time::sleep(wait).await,
            (done, _) => return done,
        }
    }
}

/// Until the answer is another than "busy", or has been that for long enough.
#[allow(
    clippy::disallowed_methods,
    reason = "version 1 tells nobody when a cgroup is frozen or has become empty"
)]
fn asked_again(mut ask: impl FnMut() -> Result<(), JailError>) -> Result<(), JailError> {
    let mut patience = Patience::new();
    loop {
        match (ask(), patience.wait()) {
            (Err(error), Some(wait)) if error.is_busy() => std::thread::sleep(wait),
            (done, _) => return done,
        }
    }
}

/// Writes to a file of a cgroup.
fn write(path: &Path, text: &str) -> Result<(), JailError> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| JailError::Cgroup {
            attempt: "write to",
            path: path.to_owned(),
            source,
        })
}

/// A directory that is gone answers in these two ways.
fn gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> Result<(), JailError> {
    let path = directory.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if gone(&error) => return Ok(()),
        Err(source) => {
            return Err(JailError::Cgroup {
                attempt: "read",
                path,
                source,
            });
        }
    }
    for below in below(directory) {
        collect(&below, pids)?;
    }
    Ok(())
}

fn below(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The directory, and those below it first where there are any.
fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            for below in below(directory) {
                remove_tree(&below)?;
            }
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        }
        removed => removed,
    }
}
