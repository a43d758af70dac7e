//! Who uses our runtime: containers of all namespaces with a task.
use std::collections::HashMap;

use anyhow::{Context as _, Result};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    DeleteTaskRequest, GetRequest, KillRequest, ListContainersRequest, ListNamespacesRequest,
};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{RemovePodSandboxRequest, StopPodSandboxRequest};
use nix::sys::signal::Signal;
use tonic::Code;
use tonic::transport::Channel;

use super::User;
use super::request::{CRI, gone_is_fine, within};
use crate::config::Scope;
use crate::precompile;

pub(super) async fn list(channel: &Channel) -> Result<Vec<User>> {
    let namespaces = NamespacesClient::new(channel.clone())
        .list(ListNamespacesRequest::default())
        .await
        .context("list containerd's namespaces")?
        .into_inner()
        .namespaces;
    let mut users = Vec::new();
    for namespace in namespaces {
        let request = ListContainersRequest {
            // One of them is enough.
            filters: Scope::ALL
                .map(|scope| format!("runtime.name=={}", scope.runtime()))
                .into(),
        };
        let containers = ContainersClient::new(channel.clone())
            .list(within(&namespace.name, request))
            .await
            .with_context(|| format!("list the containers of {}", namespace.name))?
            .into_inner()
            .containers;
        for container in containers {
            // It runs nothing, and nobody waits for it.
            if container.labels.contains_key(precompile::LABEL) {
                continue;
            }
            let request = GetRequest {
                container_id: container.id.clone(),
                ..GetRequest::default()
            };
            let task = TasksClient::new(channel.clone())
                .get(within(&namespace.name, request))
                .await;
            match task {
                Err(status) if status.code() == Code::NotFound => {}
                // One that cannot be asked is not known to have ended.
                _ => users.push(User {
                    namespace: namespace.name.clone(),
                    pod: pod(&container.labels),
                    id: container.id,
                }),
            }
        }
    }
    Ok(users)
}

fn pod(labels: &HashMap<String, String>) -> Option<String> {
    let namespace = labels.get("io.kubernetes.pod.namespace")?;
    Some(format!(
        "{namespace}/{}",
        labels.get("io.kubernetes.pod.name")?
    ))
}

pub(super) async fn end(channel: &Channel, users: &[User]) -> Result<()> {
    for user in users {
        if user.namespace == CRI {
            let mut runtime = RuntimeServiceClient::new(channel.clone());
            let pod_sandbox_id = user.id.clone();
            // An id that is no pod's is not found, and its pod is among the others.
            let stop = StopPodSandboxRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
            };
            if runtime.stop_pod_sandbox(stop).await.is_ok() {
                let remove = RemovePodSandboxRequest { pod_sandbox_id };
                runtime
                    .remove_pod_sandbox(remove)
                    .await
                    .with_context(|| format!("remove the pod {}", user.id))?;
            }
        } else {
            kill_task(channel, &user.namespace, &user.id)
                .await
                .with_context(|| format!("end {} of {}", user.id, user.namespace))?;
        }
    }
    Ok(())
}

/// Ends a task, in whatever state it is, and deletes it; that there is none is fine.
///
/// # Errors
/// What containerd says.
pub(crate) async fn kill_task(
    channel: &Channel,
    namespace: &str,
    id: &str,
) -> Result<(), tonic::Status> {
    let mut tasks = TasksClient::new(channel.clone());
    let request = KillRequest {
        container_id: id.to_owned(),
        signal: Signal::SIGKILL as u32,
        all: true,
        ..KillRequest::default()
    };
    gone_is_fine(tasks.kill(within(namespace, request)).await)?;
    let request = containerd_client::services::v1::WaitRequest {
        container_id: id.to_owned(),
        ..Default::default()
    };
    gone_is_fine(tasks.wait(within(namespace, request)).await)?;
    let request = DeleteTaskRequest {
        container_id: id.to_owned(),
    };
    gone_is_fine(tasks.delete(within(namespace, request)).await)
}
