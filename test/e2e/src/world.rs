//! The cluster that the tests run in, and the images that they run.
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cluster::{Cluster, NODE};
use harness::image::{self, Content};
use harness::{Registry, guest, unique};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::space::DEADLINE;
use crate::{CLASS, DENSE, READY};

/// A cluster with Sampan in it, and a registry.
pub struct World {
    client: Client,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    registry: Option<Registry>,
    /// Ours, if no other was named.
    cluster: Option<Cluster>,
    /// References of what was pushed, by name.
    pushed: Mutex<HashMap<String, Arc<str>>>,
}

/// An image that no node has ever seen.
#[derive(Debug)]
pub struct Fresh {
    /// Its reference.
    pub reference: String,
}

impl fmt::Debug for World {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("World")
            .field("kubeconfig", &self.kubeconfig)
            .finish_non_exhaustive()
    }
}

impl World {
    /// Why no test can run on this machine, if it is so.
    ///
    /// # Errors
    /// When the shim was not built: that is no reason to skip.
    pub(crate) fn impossible() -> Result<Option<String>> {
        if std::env::var_os("KUBECONFIG").is_some() {
            return Ok(None);
        }
        if !nix::unistd::geteuid().is_root() {
            return Ok(Some("a private cluster needs root".to_owned()));
        }
        if !harness::able()? {
            return Ok(Some("tools are missing: see above".to_owned()));
        }
        Ok(tools::Kubernetes::locate()
            .err()
            .map(|error| error.to_string()))
    }

    /// Takes the cluster that KUBECONFIG names, or brings up a private one, with Sampan's handlers, RuntimeClasses and
    /// label unless it is to be `bare`.
    ///
    /// # Errors
    /// When there is no cluster in the end.
    #[allow(clippy::print_stderr, reason = "how long it took to get there")]
    pub(crate) async fn open(bare: bool) -> Result<Self> {
        if let Some(kubeconfig) = std::env::var_os("KUBECONFIG") {
            let kubeconfig = PathBuf::from(kubeconfig);
            let client = cluster::client(&kubeconfig).await?;
            let registry = std::env::var("SAMPAN_E2E_REGISTRY").ok();
            return Ok(Self {
                client,
                kubeconfig,
                kubectl: "kubectl".into(),
                registry: registry.map(|address| Registry::at(&address)),
                cluster: None,
                pushed: Mutex::default(),
            });
        }
        let began = Instant::now();
        let builder = Cluster::builder();
        let builder = if bare {
            builder.without_sampan()
        } else {
            builder
        };
        let cluster = builder.start().await?;
        eprintln!("cluster: ready in {:.1} s", began.elapsed().as_secs_f64());
        let world = Self {
            client: cluster.client(),
            kubeconfig: cluster.kubeconfig().to_owned(),
            kubectl: cluster.kubectl().to_owned(),
            registry: None,
            cluster: Some(cluster),
            pushed: Mutex::default(),
        };
        if bare {
            return Ok(world);
        }
        world.label(true).await?;
        let classes: Api<RuntimeClass> = Api::all(world.client());
        for name in [CLASS, DENSE, "wasmtime"] {
            let class = serde_json::from_value(json!({
                "metadata": { "name": name },
                "handler": name,
                "scheduling": { "nodeSelector": { READY: "true" } },
            }))?;
            classes
                .create(&PostParams::default(), &class)
                .await
                .with_context(|| format!("create the RuntimeClass {name}"))?;
        }
        Ok(world)
    }

    /// Whoever runs the tests, in the API's eyes.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The cluster if it is ours: its node can be looked at, and its pods be asked by their own addresses.
    #[must_use]
    pub fn private(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The cluster if it is ours.
    ///
    /// # Errors
    /// A skip that says what needs it.
    pub fn private_for(&self, what: &str) -> Result<&Cluster> {
        self.private().ok_or_else(|| {
            crate::skip(format!(
                "{what}: only in the private cluster, without KUBECONFIG"
            ))
        })
    }

    /// Sets or removes the label of the private cluster's node.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn label(&self, ready: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let value = if ready { json!("true") } else { json!(null) };
        let patch = json!({ "metadata": { "labels": { READY: value } } });
        nodes
            .patch(NODE, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .context("label the node")?;
        Ok(())
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// What it says on standard error, when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .kubectl_command()
            .args(arguments)
            .output()
            .await
            .context("run kubectl")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "kubectl {} ended with {}: {}",
                arguments.join(" "),
                output.status,
                stderr.trim()
            );
        }
        String::from_utf8(output.stdout).context("read kubectl's output")
    }

    /// kubectl for this cluster, to be started with arguments. It keeps its cache where the kubeconfig lies.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        let home = self.kubeconfig.parent().unwrap_or(Path::new("/"));
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", home.join("kubectl"))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn registry(&self) -> Result<&Registry> {
        match (&self.cluster, &self.registry) {
            (Some(cluster), _) => Ok(cluster.registry()),
            (None, Some(registry)) => Ok(registry),
            (None, None) => Err(crate::skip(
                "SAMPAN_E2E_REGISTRY names no registry for the images",
            )),
        }
    }

    /// Pushes content once under a name and returns its reference.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub async fn push(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<image::Image>,
    ) -> Result<String> {
        let mut pushed = self.pushed.lock().await;
        if let Some(reference) = pushed.get(name) {
            return Ok(reference.to_string());
        }
        let reference = self.push_now(name, &make()?).await?;
        pushed.insert(name.to_owned(), reference.as_str().into());
        Ok(reference)
    }

    async fn push_now(&self, name: &str, content: &(impl Content + Sync)) -> Result<String> {
        // Others may use the same registry.
        let name = format!("sampan-e2e/{name}:{}", unique());
        self.registry()?.push(&name, content).await
    }

    /// A guest of `test/guests` as a CNCF artifact; `hello`, `probe` and such are of WASI 0.1, those whose names end in
    /// `p2` of 0.2.
    ///
    /// # Errors
    /// When it was not built, or the registry refuses it.
    pub async fn guest(&self, name: &str) -> Result<String> {
        self.push(name, || Ok(artifact(name, guest(&format!("{name}.wasm"))?)))
            .await
    }

    /// The same guest as a program that was never compiled: it carries a mark that changes its digest.
    ///
    /// # Errors
    /// As [`World::guest`].
    pub async fn fresh_guest(&self, name: &str) -> Result<Fresh> {
        let mut bytes = guest(&format!("{name}.wasm"))?;
        // A custom section, which every engine leaves aside: its id, its length, the length of its name, its name.
        let mark = unique();
        let length = u8::try_from(mark.len()).context("the mark is short")?;
        bytes.extend([0, length + 1, length]);
        bytes.extend(mark.as_bytes());
        let image = artifact(name, bytes);
        Ok(Fresh {
            reference: self.push_now(&format!("fresh-{name}"), &image).await?,
        })
    }

    /// An image with a static busybox.
    ///
    /// # Errors
    /// When the tools are missing, or the registry refuses it.
    pub async fn busybox(&self) -> Result<String> {
        self.push("busybox", image::busybox).await
    }

    /// Waits for the pods of all namespaces to end, looks for what is left on the node, and takes the cluster down if it
    /// is ours.
    pub(crate) async fn close(self) -> Result<()> {
        let Some(cluster) = self.cluster else {
            return Ok(());
        };
        let pods: Api<Pod> = Api::all(cluster.client());
        crate::eventually("the last pods to be gone", DEADLINE, async || {
            let left = pods.list(&ListParams::default()).await?.items;
            Ok(left.is_empty().then_some(()))
        })
        .await?;
        cluster
            .assert_clean()
            .await
            .context("look for what the suite has left on the node")?;
        cluster.stop().await
    }
}

fn artifact(name: &str, bytes: Vec<u8>) -> image::Image {
    let os = if name.ends_with("p2") || name.starts_with("http") {
        "wasip2"
    } else {
        "wasip1"
    };
    image::cncf(bytes, os)
}
