use std::io;
use std::path::PathBuf;

use crate::step::Step;

/// What went wrong, and on what. The sources hold what the system said.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The container's root filesystem could not be put together.
    #[error("assemble the rootfs from {what}")]
    Rootfs {
        /// The mount at fault: type and source.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A mount option that means nothing here.
    #[error("rootfs: mount option `{option}` is not supported")]
    RootfsOption {
        /// As containerd gave it.
        option: String,
    },
    /// A volume could not be opened on the host; mostly it does not exist.
    #[error("mount {}: open its source {}", destination, path.display())]
    Volume {
        /// The path in the container.
        destination: String,
        /// The path on the host.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A volume could not be put in its place.
    #[error("mount {destination}: {attempt}")]
    Mount {
        /// The path in the container.
        destination: String,
        /// What was tried.
        attempt: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The runner's binary could not be opened.
    #[error("open the runner {}", path.display())]
    Runner {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A namespace could not be opened.
    #[error("open namespace {}", path.display())]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A namespace of the kind cannot be joined or made here.
    #[error("{kind:?} namespace: {reason}")]
    NamespaceKind {
        /// Which.
        kind: plan::Isolation,
        /// Why not.
        reason: &'static str,
    },
    /// A step of the jail itself, told by a process of ours that made it.
    #[error("{step}{what}")]
    Inside {
        /// Which step, in words.
        step: String,
        /// On what, if it needs saying.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a cgroup could not be read, written, made or removed.
    #[error("cgroup: {attempt} {}", path.display())]
    Cgroup {
        /// What was tried.
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No hierarchy of cgroups was found.
    #[error("no cgroups are mounted below /sys/fs/cgroup")]
    NoCgroups,
    /// systemd did not do what it was asked for.
    #[cfg(feature = "native")]
    #[error("cgroup: ask systemd for {unit}")]
    Systemd {
        /// The unit, as the spec names it.
        unit: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A container asks for systemd's cgroups in a program without that part.
    #[cfg(not(feature = "native"))]
    #[error("cgroup: this program was built without systemd's cgroups")]
    NoSystemd,
    /// A system call on the way, with nothing more to say than what was tried.
    #[error("{attempt}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A path of a mount could not be unmounted.
    #[error("unmount {}", path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A text with a NUL byte inside.
    #[error("{what} has a NUL byte in it")]
    Nul {
        /// What it is.
        what: &'static str,
    },
    /// What came over the wire is not what this version speaks.
    #[error("{what} cannot be understood: the shim and its runner are of different versions")]
    Wire {
        /// Which message.
        what: &'static str,
        /// What the decoder said.
        source: postcard::Error,
    },
    /// The container to be joined has ended.
    #[error("the container's program has ended")]
    Ended,
    /// The other side closed the wire.
    #[error("{who} ended without a word")]
    Silent {
        /// Which side.
        who: &'static str,
    },
    /// The jail can only be entered by a process of one thread.
    #[error("the runner has {threads} threads before it enters the jail")]
    Threads {
        /// How many.
        threads: usize,
    },
}

impl JailError {
    /// For `map_err`: a system call with what was tried.
    pub(crate) fn system(attempt: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { attempt, source }
    }

    /// For `map_err`, where the call came through rustix.
    pub(crate) fn errno(attempt: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::System {
            attempt,
            source: errno.into(),
        }
    }

    pub(crate) fn step(step: Step, error: &io::Error) -> Self {
        Self::Inside {
            step: step.to_string(),
            what: String::new(),
            source: io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Whether the kernel has to be asked again later.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Cgroup { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }

    /// The error and its sources in one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            line = format!("{line}: {error}");
            source = error.source();
        }
        line.replace('\n', " ")
    }
}
