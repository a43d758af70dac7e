use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The operating-system isolation of one wasm container, or of the pod's holder: what
/// `jail::spawn` prepares and `jail::enter` carries out. Plain types: this travels to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailPlan {
    /// Namespaces to create or join.
    pub namespaces: Vec<Namespace>,
    /// Host name inside a new UTS namespace.
    pub hostname: Option<String>,
    /// Kernel parameters of the pod (`linux.sysctl`); the holder alone sets them.
    pub sysctls: Vec<Sysctl>,
    /// Whether the rootfs is read-only (`root.readonly`).
    pub root_readonly: bool,
    /// What is mounted over the rootfs, in order.
    pub mounts: Vec<MountPlan>,
    /// Whom the guest runs as.
    pub user: User,
    /// Resource limits of the process (`process.rlimits`).
    pub rlimits: Vec<Rlimit>,
    /// Badness for the kernel's out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Mapping of user ids where a new user namespace is asked for: inside, outside, count.
    pub uid_mappings: Vec<(u32, u32, u32)>,
    /// Mapping of group ids, likewise.
    pub gid_mappings: Vec<(u32, u32, u32)>,
}

/// One namespace: created, or joined by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Which kind.
    pub kind: Isolation,
    /// The namespace to join; `None` makes a new one.
    pub path: Option<PathBuf>,
}

/// The kinds of namespaces that the kernel has (OCI runtime-spec, "Namespaces").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Isolation {
    /// Mount points.
    Mount,
    /// Process ids.
    Pid,
    /// Network.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids.
    User,
    /// The view of the cgroup hierarchy.
    Cgroup,
}

/// A kernel parameter: name with dots, value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// E.g. `net.ipv4.ip_unprivileged_port_start`.
    pub name: String,
    /// What is written.
    pub value: String,
}

/// One mount over the rootfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute path in the guest's view, without `.` or `..`.
    pub destination: String,
    /// What is mounted.
    pub source: MountSource,
    /// Whether writing is refused, here and in everything below.
    pub readonly: bool,
    /// Whether later mounts of the host appear.
    pub propagation: Propagation,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the host.
    Bind {
        /// Its path on the host.
        path: PathBuf,
        /// Whether mounts below it come along.
        recursive: bool,
        /// Whom its files belong to in the container, where that is not whom they belong to on the host.
        owners: Option<Owners>,
    },
    /// An empty directory in memory, private to the container; the options are the kernel's
    /// (`size=65536k`, `mode=1777`).
    Tmpfs {
        /// Joined with commas.
        options: String,
    },
}

/// A mapping of the owners of files: inside, outside, count (mount_setattr(2), "ID-mapped mounts").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Of user ids.
    pub uids: Vec<(u32, u32, u32)>,
    /// Of group ids.
    pub gids: Vec<(u32, u32, u32)>,
    /// Whether it holds for mounts below as well.
    pub recursive: bool,
}

/// How mounts made later travel (Kubernetes: `mountPropagation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all (`None`).
    Private,
    /// From the host to the container (`HostToContainer`).
    Slave,
    /// Both ways (`Bidirectional`).
    Shared,
}

/// Whom the guest runs as (`process.user`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups, `fsGroup` among them.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; `None` is 0o022.
    pub umask: Option<u32>,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Number of the resource as the kernel counts (`RLIMIT_NOFILE` is 7 on Linux).
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}
