use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{
    LinuxIdMapping, LinuxNamespaceType, LinuxResources, Mount, PosixRlimit, PosixRlimitType,
    Process, Spec,
};

use crate::{
    Annotations, CgroupDriver, CoreDump, Entry, GuestLimits, GuestPlan, HttpListen, Isolation,
    JailPlan, Layers, MountPlan, MountSource, Namespace, NodeConfig, Options, Owners, Policy,
    Propagation, Rlimit, RootAccess, Sysctl, User, coredump, termination,
};

/// A container as containerd asked for it, checked and typed.
///
/// Made once, in `Create`. The spec itself is kept for native containers, which run with all
/// of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// containerd's id of the task.
    pub id: ContainerId,
    /// What this container is to its pod.
    pub role: Role,
    /// The pod that it belongs to, by the id of the pod's own container; `None` outside pods.
    pub pod: Option<ContainerId>,
    /// The image's name as the user wrote it, where CRI says it.
    pub image_name: Option<String>,
    /// Where its cgroup is and what it limits.
    pub cgroup: CgroupPlan,
    /// The jail of a wasm container, or of the pod's holder.
    pub jail: JailPlan,
    /// What a wasm guest gets; `None` for the pod itself.
    pub guest: Option<GuestPlan>,
    /// The whole OCI configuration.
    pub spec: Spec,
}

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The pod itself: holds the namespaces.
    Pod,
    /// A program, wasm or native.
    Container,
}

/// Where a container's cgroup is, who makes it, what it limits.
#[derive(Debug, Clone, PartialEq)]
pub struct CgroupPlan {
    /// `linux.cgroupsPath` as it stands in the spec, or `/sampan/<id>` where there is none.
    pub path: String,
    /// Who makes it.
    pub driver: CgroupDriver,
    /// `linux.resources`.
    pub resources: Option<LinuxResources>,
}

/// containerd's id of a container: 1 to 76 letters, digits, `-`, `_` or `.`, the first one a
/// letter or digit (containerd `identifiers.Validate`), so it can stand in a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes a name that is one.
    ///
    /// # Errors
    /// [`PlanError`] naming the id.
    pub fn new(id: &str) -> Result<Self, PlanError> {
        let fits = id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && id.len() <= 76
            && id
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if fits {
            Ok(Self(id.to_owned()))
        } else {
            Err(PlanError::one(
                "id",
                format!("`{id}` is not a container id"),
            ))
        }
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is wrong with a container's description, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(Vec<(String, String)>);

impl PlanError {
    pub(crate) fn one(field: &str, reason: String) -> Self {
        Self(vec![(field.to_owned(), reason)])
    }

    /// What is wrong: the field of the OCI configuration, or the place that sets something; and the reason.
    #[must_use]
    pub fn faults(&self) -> &[(String, String)] {
        &self.0
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, reason)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}

/// Collects what is wrong, so that all of it is told at once.
#[derive(Default)]
pub(crate) struct Faults(Vec<(String, String)>);

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push((field.into(), reason.into()));
    }

    /// The value, unless something is wrong.
    pub(crate) fn or<T>(self, value: T) -> Result<T, PlanError> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(PlanError(self.0))
        }
    }
}

impl Plan {
    /// Checks and types an OCI configuration, and decides what pod, RuntimeClass and node say about it.
    ///
    /// # Errors
    /// [`PlanError`] with every field at fault.
    pub fn new(
        id: &str,
        spec: Spec,
        options: &Options,
        node: &NodeConfig,
    ) -> Result<Self, PlanError> {
        let mut faults = Faults::default();
        let id = ContainerId::new(id)?;
        let none = HashMap::new();
        let annotations = Annotations::read(spec.annotations().as_ref().unwrap_or(&none));
        let layers = Layers {
            pod: &annotations.settings,
            class: &options.settings,
            node,
        };
        let policy = Policy::resolve(layers)
            .map_err(|wrong| faults.0.extend(wrong))
            .ok();
        let pod = annotations.pod.as_deref().and_then(|pod| {
            ContainerId::new(pod)
                .map_err(|error| faults.0.extend(error.0))
                .ok()
        });
        let role = if annotations.is_pod {
            Role::Pod
        } else {
            Role::Container
        };
        let mut jail = jail(&spec, &mut faults);
        let guest = match role {
            Role::Pod => None,
            Role::Container => guest(&id, &spec, &jail, &annotations, policy, &mut faults),
        };
        // The kernel holds what the policy says; WASI follows the kernel.
        jail.root_readonly |= guest
            .as_ref()
            .is_some_and(|guest| guest.rootfs != RootAccess::ReadWrite);
        let cgroup = cgroup(&id, &spec, options, &mut faults);
        faults.or(Self {
            id,
            role,
            pod,
            image_name: annotations.image_name,
            cgroup,
            jail,
            guest,
            spec,
        })
    }

    /// The entry point of a container; `None` for the pod itself.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        self.guest.as_ref().map(|guest| &guest.entry)
    }
}

fn cgroup(id: &ContainerId, spec: &Spec, options: &Options, faults: &mut Faults) -> CgroupPlan {
    let linux = spec.linux().as_ref();
    let path = linux
        .and_then(|linux| linux.cgroups_path().as_ref())
        .map_or_else(
            || format!("/sampan/{id}"),
            |path| path.display().to_string(),
        );
    match options.cgroup_driver {
        CgroupDriver::Systemd if path.split(':').count() != 3 => faults.add(
            "linux.cgroupsPath",
            format!("`{path}` is not slice:prefix:name, which SystemdCgroup asks for"),
        ),
        CgroupDriver::Cgroupfs if path.split('/').any(|part| part == "..") => {
            faults.add("linux.cgroupsPath", format!("`{path}` has a `..` in it"));
        }
        _ => {}
    }
    CgroupPlan {
        path,
        driver: options.cgroup_driver,
        resources: linux.and_then(|linux| linux.resources().clone()),
    }
}

fn guest(
    id: &ContainerId,
    spec: &Spec,
    jail: &JailPlan,
    annotations: &Annotations,
    policy: Option<Policy>,
    faults: &mut Faults,
) -> Option<GuestPlan> {
    let Some(process) = spec.process() else {
        faults.add("process", "is missing");
        return None;
    };
    let args = process.args().clone().unwrap_or_default();
    let Some(arg0) = args.first().filter(|arg0| !arg0.is_empty()) else {
        faults.add(
            "process.args",
            "is empty: say in `command` what to run, `/` for the image's module",
        );
        return None;
    };
    let env = environment(process, faults);
    let cwd = match plain_absolute(process.cwd()) {
        Some(cwd) => cwd,
        None => {
            faults.add(
                "process.cwd",
                format!(
                    "`{}` is not an absolute path without `..`",
                    process.cwd().display()
                ),
            );
            return None;
        }
    };
    let memory = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref())
        .and_then(|resources| resources.memory().as_ref())
        .and_then(|memory| memory.limit());
    let policy = policy?;
    let set = policy.http_listen.as_ref();
    let http = match policy.deaf {
        Some(reason) => HttpListen {
            address: Err(reason),
        },
        None => HttpListen::choose(
            set.map(|(place, text)| (place.as_str(), text.as_str())),
            &env,
        ),
    };
    let coredump = policy.coredump.map(|(place, dir)| {
        let name = annotations.container_name.as_deref().unwrap_or(id.as_str());
        match coredump::in_volume(&dir, &jail.mounts) {
            Ok(dir) => Ok(CoreDump {
                dir,
                source: None,
                name: name.to_owned(),
                max_bytes: policy.coredump_max_bytes,
            }),
            Err(reason) => Err(format!("{place}: {reason}")),
        }
    });
    Some(GuestPlan {
        entry: Entry::parse(arg0),
        http,
        args,
        env,
        cwd,
        command: false,
        termination: termination::message(
            &jail.mounts,
            annotations.pod_uid.as_deref(),
            annotations.container_name.as_deref(),
        ),
        network: policy.network,
        limits: GuestLimits {
            stack: policy.stack,
            fuel: policy.fuel,
            execs: policy.execs,
            ..GuestLimits::below(memory)
        },
        rootfs: policy.rootfs,
        serving: policy.serving,
        config_dir: policy.config_dir,
        on_term: policy.on_term,
        coredump,
        log_format: policy.log_format,
        engine: policy.engine,
    })
}

/// The last value of each name, in the order of first appearance.
pub(crate) fn environment(process: &Process, faults: &mut Faults) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    for (index, line) in process.env().iter().flatten().enumerate() {
        let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            // The value may be a secret: the field's place is told, not its text.
            faults.add(format!("process.env[{index}]"), "is not NAME=VALUE");
            continue;
        };
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

fn jail(spec: &Spec, faults: &mut Faults) -> JailPlan {
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref();
    let mut namespaces = Vec::new();
    for namespace in linux
        .iter()
        .flat_map(|linux| linux.namespaces().iter().flatten())
    {
        match isolation(namespace.typ()) {
            Some(kind) => namespaces.push(Namespace {
                kind,
                path: namespace.path().clone(),
            }),
            None => faults.add(
                "linux.namespaces",
                format!("`{:?}` is not supported", namespace.typ()),
            ),
        }
    }
    let sysctls = linux
        .and_then(|linux| linux.sysctl().as_ref())
        .into_iter()
        .flatten()
        .map(|(name, value)| Sysctl {
            name: name.clone(),
            value: value.clone(),
        })
        .collect();
    let ids = (
        mappings(linux.and_then(|linux| linux.uid_mappings().as_ref())),
        mappings(linux.and_then(|linux| linux.gid_mappings().as_ref())),
    );
    let mounts = spec
        .mounts()
        .iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, mount)| guest_mount(index, mount, &ids, faults))
        .collect();
    let user = process.map(|process| process.user());
    JailPlan {
        namespaces,
        hostname: spec.hostname().clone(),
        sysctls,
        root_readonly: spec
            .root()
            .as_ref()
            .is_some_and(|root| root.readonly().unwrap_or(false)),
        mounts,
        user: User {
            uid: user.map_or(0, |user| user.uid()),
            gid: user.map_or(0, |user| user.gid()),
            additional_gids: user
                .and_then(|user| user.additional_gids().clone())
                .unwrap_or_default(),
            umask: user.and_then(|user| user.umask()),
        },
        rlimits: process
            .and_then(|process| process.rlimits().as_ref())
            .into_iter()
            .flatten()
            .map(rlimit)
            .collect(),
        oom_score_adj: process.and_then(Process::oom_score_adj),
        uid_mappings: ids.0,
        gid_mappings: ids.1,
    }
}

/// Mappings of user ids and of group ids.
type Ids = (Vec<(u32, u32, u32)>, Vec<(u32, u32, u32)>);

fn mappings(all: Option<&Vec<LinuxIdMapping>>) -> Vec<(u32, u32, u32)> {
    all.into_iter()
        .flatten()
        .map(|one| (one.container_id(), one.host_id(), one.size()))
        .collect()
}

/// The mapping of a mount: its own, or the container's where an option asks for one without saying which (OCI
/// runtime-spec, "Mounts").
fn owners(mount: &Mount, ids: &Ids, ridmap: bool, idmap: bool) -> Option<Owners> {
    let own = (
        mappings(mount.uid_mappings().as_ref()),
        mappings(mount.gid_mappings().as_ref()),
    );
    let (uids, gids) = match own {
        (uids, gids) if !uids.is_empty() && !gids.is_empty() => (uids, gids),
        _ if ridmap || idmap => ids.clone(),
        _ => return None,
    };
    Some(Owners {
        uids,
        gids,
        recursive: ridmap,
    })
}

const fn isolation(kind: LinuxNamespaceType) -> Option<Isolation> {
    Some(match kind {
        LinuxNamespaceType::Mount => Isolation::Mount,
        LinuxNamespaceType::Pid => Isolation::Pid,
        LinuxNamespaceType::Network => Isolation::Network,
        LinuxNamespaceType::Ipc => Isolation::Ipc,
        LinuxNamespaceType::Uts => Isolation::Uts,
        LinuxNamespaceType::User => Isolation::User,
        LinuxNamespaceType::Cgroup => Isolation::Cgroup,
        LinuxNamespaceType::Time => return None,
    })
}

/// Numbers of `<asm-generic/resource.h>`, the same on every architecture that we build for.
fn rlimit(limit: &PosixRlimit) -> Rlimit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    };
    Rlimit {
        resource,
        soft: limit.soft(),
        hard: limit.hard(),
    }
}

/// The parts of a Linux system that a wasm guest has no use for and does not get (design: "a
/// wasm container's jail has no /proc, /sys or /dev"). Single files mounted below, such as the
/// termination log, stay visible.
const NO_PLACE: [&str; 5] = ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm"];

fn guest_mount(index: usize, mount: &Mount, ids: &Ids, faults: &mut Faults) -> Option<MountPlan> {
    let field = |part: &str| format!("mounts[{index}].{part}");
    let Some(destination) = plain_absolute(mount.destination()) else {
        faults.add(
            field("destination"),
            format!(
                "`{}` is not an absolute path without `..`",
                mount.destination().display()
            ),
        );
        return None;
    };
    if NO_PLACE.contains(&destination.as_str())
        || below(&destination, "/proc")
        || below(&destination, "/sys")
    {
        return None;
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    let kind = mount.typ().as_deref().unwrap_or("none");
    let source = match kind {
        _ if kind == "bind" || has("bind") || has("rbind") => {
            let Some(path) = mount
                .source()
                .clone()
                .filter(|path| !path.as_os_str().is_empty())
            else {
                faults.add(field("source"), format!("is missing, for {destination}"));
                return None;
            };
            MountSource::Bind {
                path,
                recursive: has("rbind"),
                owners: owners(mount, ids, has("ridmap"), has("idmap")),
            }
        }
        "tmpfs" => MountSource::Tmpfs {
            options: tmpfs_options(options),
        },
        "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue" | "devtmpfs" => return None,
        other => {
            faults.add(
                field("type"),
                format!("`{other}` cannot be given to a wasm guest, at {destination}"),
            );
            return None;
        }
    };
    let propagation = if has("rshared") || has("shared") {
        Propagation::Shared
    } else if has("rslave") || has("slave") {
        Propagation::Slave
    } else {
        Propagation::Private
    };
    // The last of `ro` and `rw` counts, as in mount(8); recursive `rro` is as good as `ro` here.
    let readonly = options
        .iter()
        .rev()
        .find_map(|option| match option.as_str() {
            "ro" | "rro" => Some(true),
            "rw" | "rrw" => Some(false),
            _ => None,
        })
        .unwrap_or(false);
    Some(MountPlan {
        destination,
        source,
        readonly,
        propagation,
    })
}

/// Those options that the kernel's tmpfs takes as data.
fn tmpfs_options(options: &[String]) -> String {
    let known = ["size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="];
    let kept: Vec<&str> = options
        .iter()
        .map(String::as_str)
        .filter(|option| known.iter().any(|prefix| option.starts_with(prefix)))
        .collect();
    kept.join(",")
}

fn below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The path without repeated or trailing slashes and `.`, if it is absolute and has no `..`.
pub(crate) fn plain_absolute(path: &Path) -> Option<String> {
    let mut plain = PathBuf::from("/");
    let mut absolute = false;
    for component in path.components() {
        match component {
            Component::RootDir => absolute = true,
            Component::CurDir => {}
            Component::Normal(name) => plain.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    absolute
        .then(|| plain.to_str().map(str::to_owned))
        .flatten()
}

#[cfg(test)]
#[path = "container/tests.rs"]
mod tests;
