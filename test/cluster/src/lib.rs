//! A private Kubernetes cluster of one node for tests: etcd, the API, controllers, scheduler, kubelet, containerd, a
//! registry and a pod network, made of real programs (`test/versions.toml`), all of it below one scratch directory and
//! listening on 127.0.0.1 alone. Two clusters run side by side; nothing of the host is changed.
//!
//! What a cluster usually has and this one has not:
//! - no kube-proxy (which needs iptables) and no DNS: Services exist and get their endpoints, but their addresses lead
//!   nowhere. Tests ask pods by their own addresses, which the host reaches. The Service `kubernetes` alone is there for
//!   pods, at its own address.
//! - one node, which is called `localhost`, since the API must reach its kubelet by name on loopback.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let cluster = cluster::Cluster::builder().start().await?;
//! let version = cluster.client().apiserver_version().await?;
//! println!("{} {}", cluster.kubeconfig().display(), version.git_version);
//! cluster.stop().await
//! # }
//! ```
#![forbid(unsafe_code)]

mod authority;
mod component;
mod control_plane;
mod door;
mod kubeconfig;
mod kubelet;
mod leftovers;
mod ports;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::{Containerd, Handler, Registry, until};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tools::Kubernetes;

use crate::component::Component;
use crate::control_plane::ControlPlane;
use crate::door::Door;
pub use kubeconfig::client;

/// The only node's name.
pub const NODE: &str = "localhost";

/// The runtime type with one supervisor for all pods.
const DENSE: &str = "io.containerd.sampan-dense.v1";
/// How long the node may take to be ready.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a start is tried: somebody else may take a port between its choice and its use.
const TRIES: u32 = 3;

/// What a cluster is started with.
#[derive(Debug, Default)]
pub struct Builder {
    without_sampan: bool,
}

impl Builder {
    /// A node on which Sampan was never installed. Otherwise containerd knows the handlers `sampan`, `sampan-dense` and
    /// `wasmtime`, with the binaries that the harness finds, as a finished installation leaves it; labels and
    /// RuntimeClasses are the test's.
    #[must_use]
    pub fn without_sampan(mut self) -> Self {
        self.without_sampan = true;
        self
    }

    /// Starts it; the node is ready when this returns.
    ///
    /// # Errors
    /// When tools are missing, or a program does not come up: the message ends with its log.
    pub async fn start(self) -> Result<Cluster> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.attempt().await {
                Err(error)
                    if tried < TRIES && format!("{error:#}").contains("address already in use") => {
                }
                done => return done,
            }
        }
    }

    async fn attempt(&self) -> Result<Cluster> {
        let programs = Kubernetes::locate()?;
        let registry = Registry::start()?;
        let builder = Containerd::builder().registry(&registry).kept().services();
        let builder = if self.without_sampan {
            builder.without_sampan()
        } else {
            // Without options, as the node program writes them: of one with options containerd tells the kubelet that its
            // pods can have no users of their own.
            [
                ("sampan", harness::runtime()),
                ("wasmtime", harness::runtime()),
                ("sampan-dense", DENSE),
            ]
            .into_iter()
            .fold(builder, |builder, (name, runtime)| {
                builder.handler(Handler::new(name, runtime))
            })
        };
        let containerd = builder
            .start()
            .await
            .context("start the node's containerd")?;
        let dir = containerd.scratch().dir().join("cluster");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;

        let services = containerd.services().context("there are Services")?;
        let control_plane = ControlPlane::start(&programs, &dir, services)
            .await
            .context("start the control plane")?;
        let kubelet = kubelet::start(&programs, &dir, &control_plane, &containerd)
            .context("start the kubelet")?;
        let ControlPlane {
            components,
            kubeconfig,
            client,
            door,
            ..
        } = control_plane;
        let mut cluster = Cluster {
            programs,
            client,
            kubeconfig,
            kubelet: Some(kubelet),
            components,
            _door: door,
            containerd,
            registry,
        };
        cluster.ready().await?;
        Ok(cluster)
    }
}

/// A running cluster. Dropping it ends and removes all of it.
pub struct Cluster {
    programs: Kubernetes,
    client: Client,
    kubeconfig: PathBuf,
    kubelet: Option<Component>,
    /// In the order in which they are stopped.
    components: Vec<Component>,
    _door: Door,
    /// Dropped after the programs that use it: its scratch directory is theirs too.
    containerd: Containerd,
    registry: Registry,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cluster")
            .field("kubeconfig", &self.kubeconfig)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster to be configured.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The same right as a file, for kubectl and helm.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl of the cluster's own version.
    #[must_use]
    pub fn kubectl(&self) -> &Path {
        &self.programs.kubectl
    }

    /// The node's containerd, which is started again whenever it ends.
    #[must_use]
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// The registry that the node pulls from.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where the kubelet keeps the directories of pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.containerd.scratch().dir().join("cluster/kubelet/pods")
    }

    /// Looks for what pods have left on the node: to be asked when all of them are deleted.
    ///
    /// # Errors
    /// What is still there after two and a half minutes; the kubelet takes its time to remove directories, cgroups and
    /// mounts.
    pub async fn assert_clean(&self) -> Result<()> {
        let own: Vec<u32> = self
            .components
            .iter()
            .chain(&self.kubelet)
            .map(Component::pid)
            .collect();
        leftovers::assert_none(&self.containerd, &self.pods(), &own).await
    }

    /// Ends all programs in order. That pods have left nothing is for [`Cluster::assert_clean`] to say, before.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(kubelet) = self.kubelet.take() {
            kubelet.stop().await?;
        }
        for component in std::mem::take(&mut self.components) {
            component.stop().await?;
        }
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let ready = until("the node to be ready", DEADLINE, async || {
            for component in self.components.iter_mut().chain(&mut self.kubelet) {
                component.running()?;
            }
            let node = nodes.get_opt(NODE).await.context("ask for the node")?;
            Ok(node.filter(is_ready).map(drop))
        })
        .await;
        let Err(error) = ready else { return Ok(()) };
        let tail = self.kubelet.as_ref().map(Component::tail);
        bail!(
            "{error:#}\nthe kubelet's log ends with:\n{}",
            tail.unwrap_or_default()
        )
    }
}

/// Whether the kubelet says that pods can run on a node.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}
