use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

/// What a test says about a container; the rest of the OCI spec is as `ctr run` makes it.
#[derive(Debug, Default)]
pub(super) struct Spec {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: Option<String>,
    pub(super) user: (u32, u32),
    pub(super) mounts: Vec<(PathBuf, String, Vec<String>)>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) host_network: bool,
    pub(super) terminal: bool,
    pub(super) cgroup: String,
}

impl Spec {
    /// The OCI spec of a container of an image with this config.
    pub(super) fn render(&self, image: &Value) -> Value {
        let image = &image["config"];
        let listed = |field: &str| {
            image[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut args = self.args.clone();
        if args.is_empty() {
            args = listed("Entrypoint");
            args.extend(listed("Cmd"));
        }
        let mut env = listed("Env");
        if env.is_empty() {
            env.push(
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            );
        }
        env.extend(self.env.clone());
        let cwd = self
            .cwd
            .as_deref()
            .or_else(|| image["WorkingDir"].as_str())
            .filter(|cwd| !cwd.is_empty());
        let capabilities = [
            "CAP_AUDIT_WRITE",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
            "CAP_NET_BIND_SERVICE",
            "CAP_NET_RAW",
            "CAP_SETFCAP",
            "CAP_SETGID",
            "CAP_SETPCAP",
            "CAP_SETUID",
            "CAP_SYS_CHROOT",
        ];
        let mut namespaces = vec![
            json!({ "type": "pid" }),
            json!({ "type": "ipc" }),
            json!({ "type": "uts" }),
            json!({ "type": "mount" }),
        ];
        if !self.host_network {
            namespaces.push(json!({ "type": "network" }));
        }
        json!({
            "ociVersion": "1.1.0",
            "process": {
                "terminal": self.terminal,
                "user": { "uid": self.user.0, "gid": self.user.1, "additionalGids": [self.user.1] },
                "args": args,
                "env": env,
                "cwd": cwd.unwrap_or("/"),
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs" },
            "mounts": self.mounts(),
            "annotations": self.annotations,
            "linux": {
                "resources": { "devices": devices() },
                "cgroupsPath": self.cgroup,
                "namespaces": namespaces,
                "maskedPaths": [
                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
                    "/proc/scsi",
                ],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        let mount = |destination: &str, kind: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            ),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        for (source, destination, options) in &self.mounts {
            let mut options = options.clone();
            options.push("rbind".to_owned());
            mounts.push(json!({ "destination": destination, "type": "bind", "source": source, "options": options }));
        }
        mounts
    }
}

/// Nothing but the devices that every container has.
fn devices() -> Vec<Value> {
    let allow = |kind: &str, major: i64, minor: i64| json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm" });
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // null, zero, full, random, urandom, tty, console, ptmx
    rules.extend(
        [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
        ]
        .map(|(major, minor)| allow("c", major, minor)),
    );
    // The terminals of devpts, whatever their number.
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    rules
}
