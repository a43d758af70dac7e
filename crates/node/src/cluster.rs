//! Kubernetes' side: this node's label and annotations, events about it and about pods, and the lease by which one node at a time
//! restarts its containerd.
mod events;
mod lease;
mod pods;
mod request;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::settings::Settings;
use crate::state::Record;

pub use events::Reason;
pub use lease::Held;
pub use pods::{Posted, Teller};
pub use request::{REQUEST, uninstall_everywhere};

/// Pods are scheduled to nodes with this label.
pub const READY: &str = "sampan.dev/ready";
const SHIM: &str = "sampan.dev/shim-version";
const ENGINE: &str = "sampan.dev/engine-version";
const WASI: &str = "sampan.dev/wasi-version";
const CONTAINERD: &str = "sampan.dev/containerd-version";
const HANDLERS: &str = "sampan.dev/runtimeclasses";
const ANNOTATIONS: [&str; 5] = [SHIM, ENGINE, WASI, CONTAINERD, HANDLERS];
/// Who changes what, in Kubernetes' records.
const MANAGER: &str = "sampan-node";

/// The cluster, if this program is to know one.
#[derive(Debug)]
pub enum Cluster {
    /// `--no-kubernetes`: every call succeeds and does nothing.
    None,
    /// A real one.
    Kube(Box<Kube>),
    /// What was asked for, in order.
    #[cfg(test)]
    Log(std::cell::RefCell<Vec<String>>),
}

/// How a node looks from its cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct View {
    /// What somebody has asked it to do by its annotation.
    pub request: Option<String>,
    /// Whether label or annotations are not there: a node that was registered anew has none.
    pub lost: bool,
}

/// A real cluster and this node in it.
pub struct Kube {
    client: Client,
    node: String,
    seat: lease::Seat,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Kube")
            .field("node", &self.node)
            .field("namespace", &self.seat.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects by the pod's service account, else by a kubeconfig.
    ///
    /// # Errors
    /// When there is neither, or this node's name was not given.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        if settings.no_kubernetes {
            return Ok(Self::None);
        }
        let node = settings
            .node_name
            .clone()
            .filter(|name| !name.is_empty())
            .context("find this node's name: set --node-name (NODE_NAME), or --no-kubernetes")?;
        let client = client().await?;
        let namespace = settings
            .lease_namespace
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let seat = lease::Seat {
            client: client.clone(),
            namespace,
            node: node.clone(),
            timeout: Duration::from_secs(settings.lease_timeout),
        };
        Ok(Self::Kube(Box::new(Kube { client, node, seat })))
    }

    /// Who tells what goes wrong with pods; nobody without a cluster.
    #[must_use]
    pub fn teller(&self) -> Option<Teller> {
        match self {
            Self::Kube(kube) => Some(Teller {
                client: kube.client.clone(),
                node: kube.node.clone(),
            }),
            Self::None => None,
            #[cfg(test)]
            Self::Log(_) => None,
        }
    }

    /// Lets pods be scheduled here, and says what is installed.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn label(&self, record: &Record) -> Result<()> {
        let annotations = json!({
            SHIM: record.versions.shim,
            ENGINE: record.versions.engine,
            WASI: record.versions.wasi,
            CONTAINERD: record.containerd,
            HANDLERS: record.handlers().join(","),
        });
        self.patch(
            "label",
            json!({ "metadata": { "labels": { READY: "true" }, "annotations": annotations } }),
        )
        .await
    }

    /// Keeps pods from being scheduled here; the annotations stay.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn unlabel(&self) -> Result<()> {
        self.patch(
            "unlabel",
            json!({ "metadata": { "labels": { READY: null } } }),
        )
        .await
    }

    /// Takes label and annotations away.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn clear(&self) -> Result<()> {
        let none: BTreeMap<&str, Value> = ANNOTATIONS
            .into_iter()
            .chain([REQUEST])
            .map(|name| (name, Value::Null))
            .collect();
        self.patch(
            "clear",
            json!({ "metadata": { "labels": { READY: null }, "annotations": none } }),
        )
        .await
    }

    /// How this node looks from there.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn view(&self) -> Result<View> {
        match self {
            Self::None => Ok(View::default()),
            #[cfg(test)]
            Self::Log(_) => Ok(View::default()),
            Self::Kube(kube) => {
                let node = kube.node().await?;
                Ok(View {
                    request: node.annotations().get(REQUEST).cloned(),
                    lost: node.labels().get(READY).is_none_or(|ready| ready != "true")
                        || !node.annotations().contains_key(SHIM),
                })
            }
        }
    }

    /// Answers the request in its annotation, for who has asked.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn answer_request(&self, answer: Option<&str>) -> Result<()> {
        self.patch(
            "answer",
            json!({ "metadata": { "annotations": { REQUEST: answer } } }),
        )
        .await
    }

    async fn patch(&self, what: &str, patch: Value) -> Result<()> {
        match self {
            Self::None => Ok(()),
            #[cfg(test)]
            Self::Log(log) => {
                log.borrow_mut().push(what.to_owned());
                Ok(())
            }
            Self::Kube(kube) => {
                let parameters = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                Api::<Node>::all(kube.client.clone())
                    .patch(&kube.node, &parameters, &Patch::Merge(patch))
                    .await
                    .map(drop)
                    .with_context(|| format!("{what} the node {}", kube.node))
            }
        }
    }

    /// Tells people, as an event of the node. That it cannot be told is logged and no error: what it is about matters
    /// more.
    pub async fn tell(&self, reason: Reason, message: &str) {
        if reason.is_warning() {
            tracing::warn!(event = %reason, "{message}");
        } else {
            tracing::info!(event = %reason, "{message}");
        }
        match self {
            Self::None => {}
            #[cfg(test)]
            Self::Log(log) => log.borrow_mut().push(reason.to_string()),
            Self::Kube(kube) => {
                if let Err(error) = events::tell(kube, reason, message).await {
                    tracing::warn!("write an event: {error:#}");
                }
            }
        }
    }

    /// Waits until no other node restarts its containerd, and takes its place.
    ///
    /// # Errors
    /// What Kubernetes says, but for others being first.
    pub async fn take_lease(&self) -> Result<Held> {
        match self {
            Self::None => Ok(Held::default()),
            #[cfg(test)]
            Self::Log(log) => {
                log.borrow_mut().push("lease".to_owned());
                Ok(Held::default())
            }
            Self::Kube(kube) => Held::take(kube.seat.clone()).await,
        }
    }
}

impl Kube {
    async fn node(&self) -> Result<Node> {
        Api::<Node>::all(self.client.clone())
            .get(&self.node)
            .await
            .with_context(|| format!("ask for the node {}", self.node))
    }
}

/// In a pod its service account; elsewhere a kubeconfig.
async fn client() -> Result<Client> {
    let mut config = match kube::Config::incluster() {
        Ok(config) => config,
        Err(_) => kube::Config::infer()
            .await
            .context("find a service account or a kubeconfig")?,
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    config.read_timeout = Some(Duration::from_secs(30));
    Client::try_from(config).context("make a client of Kubernetes")
}
