//! A pod as CRI describes it, from protobuf to the OCI configuration of its holder.

use std::collections::HashMap;

use anyhow::{Context, bail};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use plan::{CONTAINER_TYPE, ContainerId, ON_SANDBOX, POD_NAME, POD_NAMESPACE, POD_UID};
use prost::Message;
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};

/// `runtime.v1.PodSandboxConfig` (k8s.io/cri-api, `api.proto`): what concerns the pod itself.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub(super) hostname: String,
    #[prost(message, optional, tag = "4")]
    pub(super) dns: Option<Dns>,
    #[prost(message, optional, tag = "8")]
    linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// What its `resolv.conf` says.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Dns {
    #[prost(string, repeated, tag = "1")]
    pub(super) servers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) searches: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Linux {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security: Option<Security>,
    #[prost(map = "string, string", tag = "3")]
    sysctls: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Security {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
    #[prost(message, optional, tag = "3")]
    user: Option<Number>,
    #[prost(int64, repeated, tag = "5")]
    groups: Vec<i64>,
    #[prost(message, optional, tag = "8")]
    group: Option<Number>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Number {
    #[prost(int64, tag = "1")]
    value: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Namespaces {
    #[prost(enumeration = "Mode", tag = "1")]
    network: i32,
    #[prost(enumeration = "Mode", tag = "2")]
    pid: i32,
    #[prost(enumeration = "Mode", tag = "3")]
    ipc: i32,
    #[prost(message, optional, tag = "5")]
    users: Option<Users>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Users {
    #[prost(enumeration = "Mode", tag = "1")]
    mode: i32,
}

/// `NamespaceMode`: whose namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
enum Mode {
    Pod = 0,
    Container = 1,
    Node = 2,
    Target = 3,
}

/// The user of Kubernetes' pause image, where the pod names none.
const NOBODY: i64 = 65535;
/// How far the holder is from being chosen when memory is short, as containerd has it for its pods.
const OOM_SCORE: i32 = -998;
/// With it a process may lower that score (`capabilities(7)`).
const CAP_SYS_RESOURCE: u32 = 24;

impl PodConfig {
    /// Decodes what CreateSandbox brings as options.
    pub(super) fn decode(options: Option<&Any>) -> anyhow::Result<Self> {
        const TYPE: &str = "runtime.v1.PodSandboxConfig";
        let any = options.with_context(|| format!("CreateSandbox came without a {TYPE}"))?;
        if any.type_url.rsplit('/').next() != Some(TYPE) {
            bail!(
                "options of type `{}` are not understood ({TYPE})",
                any.type_url
            );
        }
        Self::decode_bytes(&any.value)
    }

    fn decode_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        <Self as Message>::decode(bytes).context("decode the pod's configuration")
    }

    fn namespaces(&self) -> Namespaces {
        let security = self
            .linux
            .as_ref()
            .and_then(|linux| linux.security.as_ref());
        security
            .and_then(|security| security.namespaces)
            .unwrap_or_default()
    }

    /// Whether its containers share memory below `/dev/shm` with each other, and not with the node.
    pub(super) fn has_own_ipc(&self) -> bool {
        self.namespaces().ipc() != Mode::Node
    }

    /// The configuration that containerd would have written for the pod's own container (its
    /// `internal/cri/server/podsandbox/sandbox_run_linux.go`), as far as the holder has use for it. `netns` is empty for a
    /// pod in the node's network.
    pub(super) fn spec(&self, id: &ContainerId, netns: &str) -> Outcome<Value> {
        let namespaces = self.namespaces();
        if namespaces
            .users
            .is_some_and(|users| users.mode() == Mode::Pod)
        {
            return Err(Failure::unimplemented(
                "a pod with users of its own (hostUsers: false) in a handler with sandboxer = \"shim\"",
            ));
        }
        let own_network = namespaces.network() != Mode::Node;
        let mut kinds = vec![json!({ "type": "mount" })];
        if namespaces.pid() != Mode::Node {
            kinds.push(json!({ "type": "pid" }));
        }
        if namespaces.ipc() != Mode::Node {
            kinds.push(json!({ "type": "ipc" }));
        }
        if own_network {
            kinds.push(json!({ "type": "uts" }));
            kinds.push(json!({ "type": "network", "path": netns }));
        }
        let linux = self.linux.clone().unwrap_or_default();
        let mut sysctl = linux.sysctls;
        if own_network {
            // As containerd's defaults are (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
            for (name, value) in [
                ("net.ipv4.ip_unprivileged_port_start", "0"),
                ("net.ipv4.ping_group_range", "0 2147483647"),
            ] {
                sysctl.entry(name.to_owned()).or_insert(value.to_owned());
            }
        }
        let security = linux.security.unwrap_or_default();
        let uid = security.user.map_or(NOBODY, |user| user.value);
        let gid = security
            .group
            .or(security.user)
            .map_or(NOBODY, |group| group.value);
        let metadata = self.metadata.clone().unwrap_or_default();
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs", "readonly": true },
            "process": {
                "cwd": "/",
                "args": ["/pause"],
                "user": { "uid": uid, "gid": gid, "additionalGids": security.groups },
                "oomScoreAdj": oom_score(),
            },
            "linux": {
                "namespaces": kinds,
                "sysctl": sysctl,
                "resources": { "cpu": { "shares": 2 } },
            },
            "annotations": {
                CONTAINER_TYPE: "sandbox",
                ON_SANDBOX: id.as_str(),
                POD_NAME: metadata.name,
                POD_NAMESPACE: metadata.namespace,
                POD_UID: metadata.uid,
            },
        });
        if !self.hostname.is_empty() {
            spec["hostname"] = json!(self.hostname);
        }
        if !linux.cgroup_parent.is_empty() {
            spec["linux"]["cgroupsPath"] = json!(cgroup(&linux.cgroup_parent, id));
        }
        Ok(spec)
    }
}

/// A slice of systemd's leads to slice:prefix:name, everything else to a directory.
fn cgroup(parent: &str, id: &ContainerId) -> String {
    let last = parent.rsplit('/').next().unwrap_or(parent);
    if last.ends_with(".slice") {
        format!("{last}:cri-containerd:{id}")
    } else {
        format!("{}/{id}", parent.trim_end_matches('/'))
    }
}

/// As low as this process may set it.
fn oom_score() -> i32 {
    let read = |file| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let status = read("status");
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    if effective.is_some_and(|set| set & (1 << CAP_SYS_RESOURCE) != 0) {
        return OOM_SCORE;
    }
    let own = read("oom_score_adj").trim().parse().unwrap_or(0);
    OOM_SCORE.max(own)
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{
        DnsConfig, Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
        NamespaceOption, PodSandboxConfig, PodSandboxMetadata, UserNamespace,
    };
    use oci_spec::runtime::Spec;
    use plan::{Isolation, NodeConfig, Options, Plan, Role};

    use super::*;

    fn theirs() -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "u-1".into(),
                namespace: "shop".into(),
                attempt: 3,
            }),
            hostname: "web-0".into(),
            dns_config: Some(DnsConfig {
                servers: vec!["10.0.0.10".into()],
                searches: vec!["cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods/pod1".into(),
                sysctls: [("kernel.shmmax".to_owned(), "9".to_owned())].into(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    run_as_user: Some(Int64Value { value: 7 }),
                    run_as_group: Some(Int64Value { value: 8 }),
                    supplemental_groups: vec![9],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
        let security = config
            .linux
            .as_mut()
            .expect("there")
            .security_context
            .as_mut();
        security
            .expect("there")
            .namespace_options
            .as_mut()
            .expect("there")
    }

    fn id() -> ContainerId {
        ContainerId::new("pod1").expect("an id")
    }

    fn ours(theirs: &PodSandboxConfig) -> PodConfig {
        let any = Any {
            type_url: "runtime.v1.PodSandboxConfig".into(),
            value: theirs.encode_to_vec(),
            ..Default::default()
        };
        PodConfig::decode(Some(&any)).expect("decodes")
    }

    fn plan(theirs: &PodSandboxConfig, netns: &str) -> Plan {
        let json = ours(theirs).spec(&id(), netns).expect("a spec");
        let spec: Spec = serde_json::from_value(json).expect("an OCI configuration");
        Plan::new("pod1", spec, &Options::default(), &NodeConfig::default()).expect("a plan")
    }

    #[test]
    fn a_pod_of_kubernetes_becomes_a_plan() {
        let plan = plan(&theirs(), "/run/netns/x");
        assert_eq!(plan.role, Role::Pod);
        assert_eq!(plan.cgroup.path, "/kubepods/pod1/pod1");
        assert_eq!(plan.jail.hostname.as_deref(), Some("web-0"));
        assert_eq!((plan.jail.user.uid, plan.jail.user.gid), (7, 8));
        assert_eq!(plan.jail.user.additional_gids, [9]);
        let network = plan
            .jail
            .namespaces
            .iter()
            .find(|one| one.kind == Isolation::Network);
        assert_eq!(
            network.and_then(|one| one.path.as_deref()),
            Some(std::path::Path::new("/run/netns/x"))
        );
        let names: Vec<&str> = plan
            .jail
            .sysctls
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        for name in ["kernel.shmmax", "net.ipv4.ip_unprivileged_port_start"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let dns = ours(&theirs()).dns.expect("there");
        assert_eq!(
            (dns.servers.len(), dns.searches.len(), dns.options.len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn the_nodes_namespaces_are_left_alone() {
        let mut config = theirs();
        let node = NamespaceMode::Node.into();
        *namespaces(&mut config) = NamespaceOption {
            network: node,
            pid: node,
            ipc: node,
            ..Default::default()
        };
        assert!(!ours(&config).has_own_ipc());
        let plan = plan(&config, "");
        let kinds: Vec<Isolation> = plan.jail.namespaces.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [Isolation::Mount]);
        assert!(
            plan.jail
                .sysctls
                .iter()
                .all(|one| !one.name.starts_with("net."))
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let mut config = theirs();
        namespaces(&mut config).userns_options = Some(UserNamespace::default());
        let failure = ours(&config)
            .spec(&id(), "/n")
            .expect_err("not implemented");
        assert!(
            failure.to_string().contains("hostUsers: false"),
            "{failure}"
        );
        let other = Any {
            type_url: "some.Other".into(),
            ..Default::default()
        };
        let error = PodConfig::decode(Some(&other))
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("some.Other"), "{error}");
        assert!(PodConfig::decode(None).is_err());
    }

    #[test]
    fn slices_are_systemds() {
        let parent = "/kubepods.slice/kubepods-burstable.slice";
        assert_eq!(
            cgroup(parent, &id()),
            "kubepods-burstable.slice:cri-containerd:pod1"
        );
        assert_eq!(cgroup("/kubepods/", &id()), "/kubepods/pod1");
    }
}
