//! A namespace of one test, and what is asked of the pods in it.
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Namespace, Pod, ServiceAccount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::{Answer, CRASHES, World, class, events, eventually};

/// How long a pod may take to get where it should.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What was executed in a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A namespace of one test.
#[derive(Debug)]
pub struct Space {
    world: Arc<World>,
    name: String,
}

impl Space {
    /// Makes it; pods can be created when this returns.
    pub(crate) async fn create(world: Arc<World>, test: &str) -> Result<Self> {
        let short: String = test
            .rsplit("::")
            .next()
            .unwrap_or(test)
            .replace('_', "-")
            .chars()
            .take(40)
            .collect();
        let name = format!(
            "e2e-{}-{}",
            short.trim_matches('-'),
            &harness::unique()[..6]
        );
        let namespaces: Api<Namespace> = Api::all(world.client());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create the namespace {name}"))?;
        let space = Self { world, name };
        let accounts: Api<ServiceAccount> = space.api();
        eventually("the default service account", DEADLINE, async || {
            Ok(accounts.get_opt("default").await?.map(drop))
        })
        .await?;
        Ok(space)
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster around it.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Objects of one kind in it.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.world.client(), &self.name)
    }

    /// Creates an object as a manifest would.
    ///
    /// # Errors
    /// When it is no such object, or the API refuses it.
    pub async fn create_object<K>(&self, manifest: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let kind = K::kind(&());
        let object: K =
            serde_json::from_value(manifest).with_context(|| format!("read the {kind}"))?;
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("create the {kind}"))
    }

    /// Creates a pod of this spec, with the tests' RuntimeClass unless the spec names another (`null` for none), and with the
    /// label `app`, its name.
    ///
    /// # Errors
    /// As [`Space::create_object`].
    pub async fn pod(&self, name: &str, spec: Value) -> Result<Pod> {
        self.pod_with(name, json!({}), spec).await
    }

    /// As [`Space::pod`], with more metadata (`annotations`, `labels`).
    ///
    /// # Errors
    /// As [`Space::create_object`].
    pub async fn pod_with(&self, name: &str, metadata: Value, spec: Value) -> Result<Pod> {
        let mut metadata = metadata;
        metadata["name"] = json!(name);
        metadata["labels"]["app"] = json!(name);
        let mut spec = spec;
        if spec.get("runtimeClassName").is_none() {
            spec["runtimeClassName"] = json!(class());
        }
        self.create_object(json!({ "metadata": metadata, "spec": spec }))
            .await
    }

    /// Waits until a pod gives a value.
    ///
    /// # Errors
    /// When it does not within two minutes, or there is no such pod.
    pub async fn pod_gives<T>(
        &self,
        name: &str,
        what: &str,
        mut look: impl FnMut(&Pod) -> Option<T>,
    ) -> Result<T> {
        let pods: Api<Pod> = self.api();
        let what = format!("pod {name}: {what}");
        eventually(&what, DEADLINE, async || {
            let pod = pods
                .get(name)
                .await
                .with_context(|| format!("ask for pod {name}"))?;
            Ok(look(&pod))
        })
        .await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// When it is not within two minutes, or has ended.
    pub async fn ready(&self, name: &str) -> Result<Pod> {
        let pod = self
            .pod_gives(name, "to be ready", |pod| {
                (is_ready(pod) || phase(pod) == "Failed").then(|| pod.clone())
            })
            .await?;
        if phase(&pod) == "Failed" {
            bail!("pod {name} has failed: {:?}", pod.status);
        }
        Ok(pod)
    }

    /// Waits until a container of a pod has ended for good, and says how.
    ///
    /// # Errors
    /// When it has not within two minutes.
    pub async fn ended(&self, name: &str, container: &str) -> Result<ContainerStateTerminated> {
        let what = format!("the end of its container {container}");
        self.pod_gives(name, &what, |pod| terminated(pod, container))
            .await
    }

    /// Waits for the end of a pod's container `app`, which has to be with 0, and returns what it has written.
    ///
    /// # Errors
    /// When it ended otherwise, or not within two minutes.
    pub async fn written(&self, name: &str) -> Result<String> {
        let end = self.ended(name, "app").await?;
        let logs = self.logs(name, "app").await?;
        if end.exit_code != 0 {
            bail!("pod {name} ended with {}: {end:?}\n{logs}", end.exit_code);
        }
        Ok(logs)
    }

    /// What a container has written.
    ///
    /// # Errors
    /// When the kubelet does not say.
    pub async fn logs(&self, name: &str, container: &str) -> Result<String> {
        let pods: Api<Pod> = self.api();
        let parameters = LogParams {
            container: Some(container.to_owned()),
            ..LogParams::default()
        };
        pods.logs(name, &parameters)
            .await
            .with_context(|| format!("ask for the log of {name}/{container}"))
    }

    /// Executes a command in a container, as `kubectl exec` does.
    ///
    /// # Errors
    /// When it cannot be executed at all.
    pub async fn exec(&self, name: &str, container: &str, command: &[&str]) -> Result<Output> {
        let pods: Api<Pod> = self.api();
        let parameters = AttachParams::default().container(container).stderr(true);
        let mut attached = pods
            .exec(name, command.iter().copied(), &parameters)
            .await
            .with_context(|| format!("execute {command:?} in {name}/{container}"))?;
        let status = attached.take_status().context("the status is taken once")?;
        let (stdout, stderr) = (attached.stdout(), attached.stderr());
        let (mut written, mut complained) = (String::new(), String::new());
        let read_out = async {
            match stdout {
                Some(mut stdout) => stdout.read_to_string(&mut written).await,
                None => Ok(0),
            }
        };
        let read_err = async {
            match stderr {
                Some(mut stderr) => stderr.read_to_string(&mut complained).await,
                None => Ok(0),
            }
        };
        let (out, err, status) = tokio::join!(read_out, read_err, status);
        out.context("read standard output")?;
        err.context("read standard error")?;
        let status = status.context("the stream ended without a status")?;
        Ok(Output {
            code: exit_code(&status)
                .with_context(|| format!("execute {command:?} in {name}/{container}"))?,
            stdout: written,
            stderr: complained,
        })
    }

    /// Asks a pod's port 8080 for a path: by its address where this machine reaches it, else through the API.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, name: &str, path: &str) -> Result<Answer> {
        if self.world.private().is_none() {
            return self.get_forwarded(name, path).await;
        }
        let pods: Api<Pod> = self.api();
        let pod = pods.get(name).await?;
        let address = address(&pod).with_context(|| format!("pod {name} has no address"))?;
        let stream = TcpStream::connect((address.as_str(), 8080))
            .await
            .with_context(|| format!("connect to pod {name} at {address}"))?;
        Answer::over(stream, path).await
    }

    /// Asks a pod's port 8080 for a path through a port that the API forwards, as `kubectl port-forward` does.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get_forwarded(&self, name: &str, path: &str) -> Result<Answer> {
        let pods: Api<Pod> = self.api();
        let mut forwarder = pods
            .portforward(name, &[8080])
            .await
            .with_context(|| format!("forward a port to pod {name}"))?;
        let stream = forwarder
            .take_stream(8080)
            .context("the stream is taken once")?;
        let answer = Answer::over(stream, path).await;
        forwarder.abort();
        answer
    }

    /// Deletes a pod and waits until it is gone.
    ///
    /// # Errors
    /// When it is not within two minutes, or has restarted and was not meant to crash.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        let pods: Api<Pod> = self.api();
        let pod = pods
            .get(name)
            .await
            .with_context(|| format!("ask for pod {name}"))?;
        let restarted = restarts(&pod);
        if !restarted.is_empty() && !is_meant_to_crash(&pod.metadata) {
            bail!("restarted: {}", restarted.join(", "));
        }
        pods.delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete pod {name}"))?;
        self.gone(name).await
    }

    /// Waits until a pod is gone.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub async fn gone(&self, name: &str) -> Result<()> {
        let pods: Api<Pod> = self.api();
        let what = format!("pod {name} to be gone");
        eventually(&what, DEADLINE, async || {
            Ok(pods.get_opt(name).await?.is_none().then_some(()))
        })
        .await
    }

    /// The messages of the events of one object, oldest first, each after its reason.
    ///
    /// # Errors
    /// When the API does not say.
    pub async fn events_of(&self, name: &str) -> Result<Vec<String>> {
        events::of(&self.world.client(), &self.name, Some(name)).await
    }

    /// What a person would look at when the test has failed.
    pub(crate) async fn describe(&self) -> String {
        let pods: Api<Pod> = self.api();
        let mut text = String::new();
        for pod in pods
            .list(&ListParams::default())
            .await
            .into_iter()
            .flatten()
        {
            let name = pod.metadata.name.clone().unwrap_or_default();
            text += &format!(
                "pod {name}: {} {}\n",
                phase(&pod),
                serde_json::to_string(&statuses(&pod)).unwrap_or_default()
            );
        }
        for event in events::of(&self.world.client(), &self.name, None)
            .await
            .unwrap_or_default()
        {
            text += &format!("event {event}\n");
        }
        text
    }

    /// Deletes the namespace, and waits until its pods are gone. That pods have restarted which are not meant to crash
    /// is a failure.
    pub(crate) async fn close(&self) -> Result<()> {
        let pods: Api<Pod> = self.api();
        let restarted: Vec<String> = pods
            .list(&ListParams::default())
            .await
            .context("list the pods of the test")?
            .iter()
            .filter(|pod| !is_meant_to_crash(&pod.metadata))
            .flat_map(restarts)
            .collect();
        let namespaces: Api<Namespace> = Api::all(self.world.client());
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete the namespace {}", self.name))?;
        let what = format!("the pods of {} to be gone", self.name);
        eventually(&what, DEADLINE, async || {
            let left = pods.list(&ListParams::default()).await?.items;
            Ok(left.is_empty().then_some(()))
        })
        .await?;
        if !restarted.is_empty() {
            bail!("restarted: {}", restarted.join(", "));
        }
        Ok(())
    }
}

/// The phase of a pod, empty before it has any.
#[must_use]
fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|it| it.phase.as_deref()).unwrap_or("")
}

/// Whether a pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

fn is_meant_to_crash(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(CRASHES))
}

/// The statuses of all containers of a pod.
fn statuses(pod: &Pod) -> Vec<&ContainerStatus> {
    let status = pod.status.as_ref();
    status
        .into_iter()
        .flat_map(|it| [&it.init_container_statuses, &it.container_statuses])
        .flatten()
        .flatten()
        .collect()
}

/// The containers of a pod that have restarted, with how often.
#[must_use]
pub fn restarts(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    statuses(pod)
        .into_iter()
        .filter(|status| status.restart_count > 0)
        .map(|status| format!("{name}/{} {} times", status.name, status.restart_count))
        .collect()
}

fn terminated(pod: &Pod, container: &str) -> Option<ContainerStateTerminated> {
    let status = statuses(pod)
        .into_iter()
        .find(|status| status.name == container)?;
    match &status.state {
        Some(ContainerState {
            terminated: Some(end),
            ..
        }) => Some(end.clone()),
        _ => None,
    }
}

/// The exit code that the kubelet reports at the end of the stream.
fn exit_code(status: &Status) -> Result<i32> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|it| it.causes.as_ref());
    let code = causes.into_iter().flatten().find_map(|cause| {
        let code = cause.reason.as_deref() == Some("ExitCode");
        code.then(|| cause.message.as_deref()?.parse().ok())?
    });
    code.with_context(|| status.message.clone().unwrap_or_default())
}
