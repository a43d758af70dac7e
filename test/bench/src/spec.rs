//! The OCI runtime spec that every contestant gets: what CRI writes for a plain container.

use std::path::Path;

use serde_json::{Value, json};

/// What differs between containers.
pub(crate) struct Subject<'a> {
    pub(crate) id: &'a str,
    pub(crate) args: &'a [String],
    /// `NAME=VALUE`, beside PATH.
    pub(crate) env: &'a [String],
    pub(crate) network: &'a Path,
    pub(crate) cgroup: &'a str,
    /// The pod that it belongs to and whether it is the pod's first container, which holds its namespaces.
    pub(crate) pod: Option<(&'a str, PodRole)>,
}

/// CRI's two kinds of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodRole {
    Sandbox,
    Container,
}

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

impl Subject<'_> {
    pub(crate) fn spec(&self) -> Value {
        let mut annotations = json!({});
        if let Some((pod, role)) = self.pod {
            annotations = json!({
                "io.kubernetes.cri.sandbox-id": pod,
                "io.kubernetes.cri.container-type": match role {
                    PodRole::Sandbox => "sandbox",
                    PodRole::Container => "container",
                },
            });
        }
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env: Vec<&str> = std::iter::once(path)
            .chain(self.env.iter().map(String::as_str))
            .collect();
        json!({
            "ociVersion": "1.1.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": self.args,
                "env": env,
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES,
                    "effective": CAPABILITIES,
                    "permitted": CAPABILITIES,
                },
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs"},
            "hostname": "bench",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "annotations": annotations,
            "linux": {
                "cgroupsPath": format!("{}/{}", self.cgroup, self.id),
                "resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 102}},
                "namespaces": [
                    {"type": "pid"},
                    {"type": "ipc"},
                    {"type": "uts"},
                    {"type": "mount"},
                    {"type": "network", "path": self.network},
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
                "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        })
    }
}
