use std::path::{Path, PathBuf};

use crate::{CacheError, Pins, cache_dir};

/// Why a tool was not found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// No cache directory.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The file is not there.
    #[error("find {name} at {path}: run `cargo xtask tools`", path = path.display())]
    Missing {
        /// The program.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is not there, and only `cargo xtask e2e` builds it.
    #[error("find {name} at {path}: run `cargo xtask e2e`, which builds it", path = path.display())]
    NotBuilt {
        /// The program.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
}

/// The programs of one containerd release.
#[derive(Clone, Debug)]
pub struct Containerd {
    /// Directory of the three; belongs on containerd's PATH, since containerd looks its shims up there.
    pub dir: PathBuf,
    /// The daemon.
    pub containerd: PathBuf,
    /// Its command line client.
    pub ctr: PathBuf,
    /// runc's shim.
    pub shim_runc: PathBuf,
}

/// Where everything is that the tests run against.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The newest 2.x that is pinned.
    pub containerd_2: Containerd,
    /// The newest 1.7 that is pinned.
    pub containerd_1_7: Containerd,
    /// CRI's command line client.
    pub crictl: PathBuf,
    /// The OCI runtime below runc's shim.
    pub runc: PathBuf,
    /// Directory of the CNI plugins.
    pub cni: PathBuf,
    /// The registry (`docker-registry serve CONFIG`).
    pub registry: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

impl Tools {
    /// Finds the tools of this checkout's pins.
    ///
    /// # Errors
    /// When one is not there: the message names it and says to run `cargo xtask tools`.
    pub fn locate() -> Result<Self, LocateError> {
        Self::below(&cache_dir()?)
    }

    /// As [`Tools::locate`], in the given cache directory.
    ///
    /// # Errors
    /// As [`Tools::locate`].
    pub fn below(cache: &Path) -> Result<Self, LocateError> {
        let pins = Pins::of_this_checkout();
        let containerd = |name: &str| {
            let dir = pins.module_dir(cache, name).join("bin");
            Ok::<_, LocateError>(Containerd {
                containerd: present(dir.join("containerd"))?,
                ctr: present(dir.join("ctr"))?,
                shim_runc: present(dir.join("containerd-shim-runc-v2"))?,
                dir,
            })
        };
        let debian = pins.debian_dir(cache);
        let first_of = |names: &[&str]| {
            let paths = names.iter().map(|name| debian.join(name));
            present(
                paths
                    .clone()
                    .find(|path| path.exists())
                    .unwrap_or_else(|| debian.join(names[0])),
            )
        };
        Ok(Self {
            containerd_2: containerd("containerd-2")?,
            containerd_1_7: containerd("containerd-1.7")?,
            crictl: present(pins.module_dir(cache, "crictl").join("bin/crictl"))?,
            // Packages have moved from /sbin and /bin to below /usr between releases.
            runc: first_of(&["usr/sbin/runc", "usr/bin/runc"])?,
            cni: present(debian.join("usr/lib/cni"))?,
            registry: first_of(&["usr/bin/docker-registry"])?,
            busybox: first_of(&["bin/busybox", "usr/bin/busybox"])?,
        })
    }
}

/// The programs of a Kubernetes node and its control plane, which only `cargo xtask e2e` needs and builds.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// Where the control plane keeps what it knows.
    pub etcd: PathBuf,
    /// The API.
    pub apiserver: PathBuf,
    /// Deployments, Jobs, namespaces and what else follows from what is asked for.
    pub controller_manager: PathBuf,
    /// Which pod on which node.
    pub scheduler: PathBuf,
    /// The node's side.
    pub kubelet: PathBuf,
    /// The command line.
    pub kubectl: PathBuf,
}

impl Kubernetes {
    /// Finds the programs of this checkout's pin; the kubelet is the one that `SAMPAN_KUBELET` names, if it is set.
    ///
    /// # Errors
    /// When one is not there: the message names it.
    pub fn locate() -> Result<Self, LocateError> {
        let kubelet = std::env::var_os("SAMPAN_KUBELET").map(PathBuf::from);
        let dir = Pins::of_this_checkout()
            .module_dir(&cache_dir()?, "kubernetes")
            .join("bin");
        let at = |name: &str| built_for_e2e(dir.join(name));
        Ok(Self {
            etcd: at("etcd")?,
            apiserver: at("kube-apiserver")?,
            controller_manager: at("kube-controller-manager")?,
            scheduler: at("kube-scheduler")?,
            kubelet: kubelet.map_or_else(|| at("kubelet"), built_for_e2e)?,
            kubectl: at("kubectl")?,
        })
    }
}

/// helm, which renders the chart and installs it.
///
/// # Errors
/// When it is not there.
pub fn helm() -> Result<PathBuf, LocateError> {
    let pins = Pins::of_this_checkout();
    present(pins.module_dir(&cache_dir()?, "helm").join("bin/helm"))
}

/// The test of the container runtime interface, which only `cargo xtask conformance` needs and builds.
///
/// # Errors
/// When it is not there.
pub fn critest() -> Result<PathBuf, LocateError> {
    let pins = Pins::of_this_checkout();
    present(
        pins.module_dir(&cache_dir()?, "critest")
            .join("bin/critest"),
    )
}

fn present(path: PathBuf) -> Result<PathBuf, LocateError> {
    if path.exists() {
        return Ok(path);
    }
    let name = name_of(&path);
    Err(LocateError::Missing { name, path })
}

fn built_for_e2e(path: PathBuf) -> Result<PathBuf, LocateError> {
    if path.exists() {
        return Ok(path);
    }
    let name = name_of(&path);
    Err(LocateError::NotBuilt { name, path })
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cache_says_what_to_run() {
        let error = Tools::below(Path::new("/nonexistent"))
            .expect_err("nothing is there")
            .to_string();
        assert!(
            error.contains("find containerd at /nonexistent/tools/containerd-2-"),
            "{error}"
        );
        assert!(error.ends_with("run `cargo xtask tools`"), "{error}");
    }
}
