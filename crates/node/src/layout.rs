//! What Kubernetes' distributions put where: data, not code. A node is recognised by files that only that distribution
//! has; the first row that fits is taken, so a row stands before those that it would also fit.
use std::path::{Path, PathBuf};

use crate::host::Host;

/// One distribution.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// Its name in messages and in the status.
    pub name: &'static str,
    /// It is this one if any of these exists. None: it fits always.
    pub marks: &'static [&'static str],
    /// containerd's sockets, in the order of preference.
    pub sockets: &'static [&'static str],
    /// containerd's configuration, where its command line does not name it.
    pub config: &'static str,
    /// A directory whose files the distribution merges into containerd's configuration itself.
    pub drop_in_dir: Option<&'static str>,
    /// Files from which the distribution makes containerd's configuration at each start.
    pub templates: &'static [Template],
    /// Units of systemd that serve containerd, where its cgroup does not name one.
    pub units: &'static [&'static str],
    /// What a person should know.
    pub notes: &'static str,
}

/// A file from which a distribution makes containerd's configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Template {
    /// Its path.
    pub path: &'static str,
    /// For configurations of at least this version.
    pub version: i64,
    /// What it has to begin with where it is not there; `None`: it must be there.
    pub fresh: Option<&'static str>,
}

const CONTAINERD: &[&str] = &["/run/containerd/containerd.sock"];
const CONFIG: &str = "/etc/containerd/config.toml";
const UNITS: &[&str] = &["containerd"];
/// How a template of k3s and RKE2 takes over what they would write without it.
const BASE: Option<&str> = Some("{{ template \"base\" . }}\n");

/// All that we know.
pub const LAYOUTS: &[Layout] = &[
    Layout {
        name: "rke2",
        marks: &[
            "/var/lib/rancher/rke2/agent/containerd",
            "/etc/rancher/rke2",
        ],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        drop_in_dir: None,
        templates: &[
            Template {
                path: "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl",
                version: 3,
                fresh: BASE,
            },
            Template {
                path: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl",
                version: 2,
                fresh: BASE,
            },
        ],
        units: &["rke2-agent", "rke2-server"],
        notes: "config.toml is written at each start; newer releases import config-v3.toml.d, which is preferred",
    },
    Layout {
        name: "k3s",
        marks: &["/var/lib/rancher/k3s/agent/containerd", "/etc/rancher/k3s"],
        sockets: &["/run/k3s/containerd/containerd.sock"],
        config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        drop_in_dir: None,
        templates: &[
            Template {
                path: "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
                version: 3,
                fresh: BASE,
            },
            Template {
                path: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
                version: 2,
                fresh: BASE,
            },
        ],
        units: &["k3s-agent", "k3s"],
        notes: "config.toml is written at each start; newer releases import config-v3.toml.d, which is preferred",
    },
    Layout {
        name: "k0s",
        marks: &["/var/lib/k0s", "/etc/k0s"],
        sockets: &["/run/k0s/containerd.sock"],
        config: "/etc/k0s/containerd.toml",
        drop_in_dir: Some("/etc/k0s/containerd.d"),
        templates: &[],
        units: &["k0sworker", "k0scontroller"],
        notes: "k0s merges /etc/k0s/containerd.d when it starts, so k0s itself is restarted",
    },
    Layout {
        name: "microk8s",
        marks: &["/var/snap/microk8s"],
        sockets: &["/var/snap/microk8s/common/run/containerd.sock"],
        config: "/var/snap/microk8s/current/args/containerd.toml",
        drop_in_dir: None,
        templates: &[Template {
            path: "/var/snap/microk8s/current/args/containerd-template.toml",
            version: 1,
            fresh: None,
        }],
        units: &["snap.microk8s.daemon-containerd"],
        notes: "containerd.toml is made from containerd-template.toml at each start",
    },
    Layout {
        name: "minikube",
        marks: &["/var/lib/minikube"],
        sockets: CONTAINERD,
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "needs --container-runtime=containerd; what is below /etc is lost when the machine is made anew",
    },
    Layout {
        name: "kind",
        marks: &["/kind/product_name", "/kind/manifests", "/kind/version"],
        sockets: CONTAINERD,
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "the node is a container; discard_unpacked_layers is set, so images are pulled the older way",
    },
    Layout {
        name: "aks",
        marks: &["/etc/kubernetes/azure.json", "/opt/azure/containers"],
        sockets: CONTAINERD,
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "a node image upgrade makes the node anew",
    },
    Layout {
        name: "eks",
        marks: &["/etc/eks", "/usr/bin/nodeadm"],
        sockets: &["/run/containerd/containerd.sock", "/run/dockershim.sock"],
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "Amazon Linux: nodeadm writes config.toml at boot, which imports config.d where it is new enough. Bottlerocket's root cannot be written to and is not supported",
    },
    Layout {
        name: "gke",
        marks: &[
            "/home/kubernetes/kube-env",
            "/home/kubernetes/bin",
            "/etc/gke",
        ],
        sockets: CONTAINERD,
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "Container-Optimized OS: /opt cannot be written to, so set --prefix to a directory below /home/kubernetes/bin, which is mounted with exec; Autopilot refuses privileged pods",
    },
    Layout {
        name: "containerd",
        marks: &[],
        sockets: &[
            "/run/containerd/containerd.sock",
            "/var/run/containerd/containerd.sock",
        ],
        config: CONFIG,
        drop_in_dir: None,
        templates: &[],
        units: UNITS,
        notes: "kubeadm, or containerd as its packages install it",
    },
];

impl Layout {
    /// What runs on this host.
    #[must_use]
    pub fn of(host: &Host) -> &'static Self {
        LAYOUTS
            .iter()
            .find(|layout| {
                layout.marks.is_empty()
                    || layout.marks.iter().any(|mark| host.exists(Path::new(mark)))
            })
            .unwrap_or(&LAYOUTS[LAYOUTS.len() - 1])
    }

    /// The first of its sockets that is there.
    #[must_use]
    pub fn socket(&self, host: &Host) -> Option<PathBuf> {
        self.sockets
            .iter()
            .map(PathBuf::from)
            .find(|socket| host.exists(socket))
    }

    /// The template for a configuration of this version.
    #[must_use]
    pub fn template(&self, version: i64) -> Option<&'static Template> {
        self.templates
            .iter()
            .find(|template| version >= template.version)
    }
}

#[cfg(test)]
mod tests;
