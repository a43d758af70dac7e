//! A tree of files for every distribution, as it lies on a node; each is recognised as what it is.
use std::fs;

use super::*;

/// Files of a node: an end with a slash makes a directory.
const TREES: &[(&str, &[&str])] = &[
    (
        "containerd",
        &[
            "etc/containerd/config.toml",
            "etc/kubernetes/kubelet.conf",
            "run/containerd/containerd.sock",
            "opt/cni/bin/",
        ],
    ),
    (
        "kind",
        &[
            "kind/product_name",
            "kind/manifests/default-cni.yaml",
            "etc/containerd/config.toml",
            "run/containerd/containerd.sock",
        ],
    ),
    (
        "k3s",
        &[
            "etc/rancher/k3s/k3s.yaml",
            "var/lib/rancher/k3s/agent/containerd/",
            "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
            "run/k3s/containerd/containerd.sock",
        ],
    ),
    (
        "rke2",
        &[
            "etc/rancher/rke2/config.yaml",
            "var/lib/rancher/rke2/agent/containerd/",
            "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
            "run/k3s/containerd/containerd.sock",
        ],
    ),
    (
        "k0s",
        &[
            "etc/k0s/containerd.toml",
            "etc/k0s/containerd.d/",
            "var/lib/k0s/bin/",
            "run/k0s/containerd.sock",
        ],
    ),
    (
        "microk8s",
        &[
            "var/snap/microk8s/current/args/containerd.toml",
            "var/snap/microk8s/current/args/containerd-template.toml",
            "var/snap/microk8s/common/run/containerd.sock",
        ],
    ),
    (
        "minikube",
        &[
            "var/lib/minikube/certs/",
            "etc/containerd/config.toml",
            "run/containerd/containerd.sock",
        ],
    ),
    (
        "aks",
        &[
            "etc/kubernetes/azure.json",
            "opt/azure/containers/",
            "etc/containerd/config.toml",
            "run/containerd/containerd.sock",
        ],
    ),
    (
        "eks",
        &[
            "etc/eks/nodeadm/",
            "usr/bin/nodeadm",
            "etc/containerd/config.toml",
            "run/containerd/containerd.sock",
        ],
    ),
    (
        "gke",
        &[
            "home/kubernetes/kube-env",
            "home/kubernetes/bin/",
            "etc/containerd/config.toml",
            "run/containerd/containerd.sock",
        ],
    ),
];

fn planted(tree: &[&str]) -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().expect("a directory");
    for path in tree {
        let at = root.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).expect("make");
        } else {
            fs::create_dir_all(at.parent().expect("below the root")).expect("make");
            fs::write(at, "").expect("write");
        }
    }
    let host = Host::new(root.path());
    (root, host)
}

#[test]
fn every_distribution_has_a_tree_and_is_recognised_by_it() {
    for layout in LAYOUTS {
        let (_, tree) = TREES
            .iter()
            .find(|(name, _)| *name == layout.name)
            .unwrap_or_else(|| panic!("{} has no tree", layout.name));
        let (_root, host) = planted(tree);
        assert_eq!(Layout::of(&host), layout);
        let socket = layout.socket(&host).expect("its socket is there");
        assert!(host.exists(&socket));
        assert!(host.exists(Path::new(layout.config)), "{}", layout.name);
        assert!(!layout.units.is_empty() && !layout.notes.is_empty());
    }
    assert_eq!(TREES.len(), LAYOUTS.len());
}

#[test]
fn each_mark_alone_is_enough() {
    for layout in LAYOUTS {
        for mark in layout.marks {
            let (_root, host) = planted(&[mark.trim_start_matches('/')]);
            assert_eq!(Layout::of(&host).name, layout.name, "{mark}");
        }
    }
}

#[test]
fn templates_go_by_the_version_of_the_configuration() {
    let (_root, host) = planted(TREES[2].1);
    let k3s = Layout::of(&host);
    let name = |version| k3s.template(version).map(|template| template.path);
    assert!(name(3).is_some_and(|path| path.ends_with("config-v3.toml.tmpl")));
    assert!(name(2).is_some_and(|path| path.ends_with("config.toml.tmpl")));
    assert_eq!(name(1), None);
}

#[test]
fn a_socket_that_is_not_there_is_none() {
    let (_root, host) = planted(&["etc/k0s/"]);
    assert_eq!(Layout::of(&host).socket(&host), None);
}
