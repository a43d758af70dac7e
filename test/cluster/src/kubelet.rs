//! The kubelet: private directories, a cgroup of its own below the roots, and nothing changed on the host.
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use harness::Containerd;
use nix::mount::{MsFlags, mount};
use serde_json::json;
use tools::Kubernetes;

use crate::component::Component;
use crate::control_plane::ControlPlane;
use crate::{NODE, ports};

const CGROUPS: &str = "/sys/fs/cgroup";
const NAMESPACE: &str = include_str!("kubelet/namespace.sh");
/// What the kubelet wants of the kernel.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];

/// Starts it in `dir`.
pub(crate) fn start(
    programs: &Kubernetes,
    dir: &Path,
    control_plane: &ControlPlane,
    containerd: &Containerd,
) -> Result<Component> {
    let parent = containerd.scratch().cgroup_parent();
    let services = containerd.services().context("there are Services")?;
    make_cgroups(&parent)?;
    let root = shared_directory(&dir.join("kubelet"))?;
    let sysctls = dir.join("sysctl");
    fs::create_dir_all(&sysctls).with_context(|| format!("create {}", sysctls.display()))?;
    for (name, value) in SYSCTLS {
        fs::write(sysctls.join(name), format!("{value}\n"))
            .with_context(|| format!("write the stand-in of {name}"))?;
    }
    let resolv = dir.join("resolv.conf");
    fs::write(&resolv, "").context("write an empty resolv.conf")?;

    let [port, health] = ports::free()?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health,
        "readOnlyPort": 0,
        "containerRuntimeEndpoint": format!("unix://{}", containerd.socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": parent,
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": control_plane.authority.certificate() },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": control_plane.kubelet.certificate,
        "tlsPrivateKeyFile": control_plane.kubelet.key,
        "resolvConf": resolv,
        // Nothing answers there; it only keeps a warning away.
        "clusterDNS": [Ipv4Addr::from_bits(services.to_bits() + 10)],
        "podLogsDir": dir.join("podlogs"),
        "volumePluginDir": dir.join("plugins"),
        "maxPods": 1000,
        // Whatever else fills the machine's disk is no reason to evict pods.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "memory.available": "100Mi",
        },
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    });
    let file = dir.join("kubelet.json");
    fs::write(&file, config.to_string()).context("write the kubelet's configuration")?;

    Component::start(
        "kubelet",
        dir,
        Command::new("unshare")
            .args(["--mount", "--propagation", "unchanged", "sh", "-ec"])
            .args([NAMESPACE, "sh"])
            .arg(&sysctls)
            .arg(&programs.kubelet)
            .arg(format!("--config={}", file.display()))
            .arg(format!(
                "--kubeconfig={}",
                control_plane.kubelet_kubeconfig.display()
            ))
            .arg(format!("--hostname-override={NODE}"))
            .arg(format!("--root-dir={}", root.display()))
            .arg(format!("--cert-dir={}", dir.join("pki").display())),
    )
}

/// A directory whose mounts reach containerd, which lives in the host's mount namespace.
fn shared_directory(path: &Path) -> Result<PathBuf> {
    fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    let none = None::<&str>;
    mount(Some(path), path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("bind {} to itself", path.display()))?;
    mount(none, path, none, MsFlags::MS_SHARED, none)
        .with_context(|| format!("share the mounts of {}", path.display()))?;
    Ok(path.to_owned())
}

/// Makes the parent of all pods' cgroups in every hierarchy; the kubelet wants it to be there. It goes with the scratch
/// directory.
fn make_cgroups(parent: &str) -> Result<()> {
    let name = parent.trim_start_matches('/');
    let roots: Vec<PathBuf> = if Path::new(CGROUPS).join("cgroup.controllers").exists() {
        vec![PathBuf::from(CGROUPS)]
    } else {
        fs::read_dir(CGROUPS)
            .with_context(|| format!("list {CGROUPS}"))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("cgroup.procs").exists())
            .collect()
    };
    for root in roots {
        let dir = root.join(name);
        if !dir.exists() {
            fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        // Of cgroup v1: nothing can be in it before it has processors and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (
                fs::read_to_string(root.join(file)),
                root.join("tasks").exists(),
            ) {
                fs::write(dir.join(file), value.trim())
                    .with_context(|| format!("write {file} of {}", dir.display()))?;
            }
        }
    }
    Ok(())
}
