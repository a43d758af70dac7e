//! A container that is created and never started.
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    ListContainersRequest,
};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::images::Image;
use crate::config::Scope;
use crate::containerd::request::{CRI, gone_is_fine, within};
use crate::containerd::users::kill_task;

/// By this label they are found again, should this program be killed meanwhile.
pub(crate) const LABEL: &str = "sampan.dev/precompile";
/// containerd's name for the OCI runtime specification's configuration (containerd `core/runtime/typeurl.go`).
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// How containers are created ahead.
pub(super) struct Ahead<'a> {
    pub(super) channel: &'a Channel,
    /// The shim, as containerd is to execute it.
    pub(super) shim: &'a Path,
    /// How long one may take.
    pub(super) deadline: Duration,
}

/// What came of a creation that containerd has answered.
pub(super) enum Outcome {
    /// The program is in the store.
    Ready,
    /// Why it is not.
    Refused(String),
}

impl Ahead<'_> {
    /// Creates a container of an image and deletes it again.
    ///
    /// # Errors
    /// When containerd goes away.
    pub(super) async fn create(&self, image: &Image) -> Result<Outcome> {
        let id = id(&image.target.digest);
        let request = CreateContainerRequest {
            container: Some(Container {
                id: id.clone(),
                labels: HashMap::from([(LABEL.to_owned(), "true".to_owned())]),
                image: image.name.clone(),
                runtime: Some(Runtime {
                    name: Scope::Pod.runtime().to_owned(),
                    options: None,
                }),
                spec: Some(Any {
                    type_url: SPEC.to_owned(),
                    value: spec(&id).to_string().into_bytes(),
                }),
                ..Container::default()
            }),
        };
        ContainersClient::new(self.channel.clone())
            .create(within(CRI, request))
            .await
            .with_context(|| format!("make the container {id}"))?;
        let created = tokio::time::timeout(self.deadline, self.task(&id)).await;
        remove(self.channel, &id).await?;
        match created {
            Ok(Ok(())) => Ok(Outcome::Ready),
            Ok(Err(status)) if is_away(&status) => {
                Err(status).with_context(|| format!("create the task {id}"))
            }
            Ok(Err(status)) => Ok(Outcome::Refused(status.message().to_owned())),
            Err(_) => Ok(Outcome::Refused(format!(
                "it took longer than {} s",
                self.deadline.as_secs()
            ))),
        }
    }

    async fn task(&self, id: &str) -> Result<(), Status> {
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            runtime_path: self.shim.to_string_lossy().into_owned(),
            ..CreateTaskRequest::default()
        };
        TasksClient::new(self.channel.clone())
            .create(within(CRI, request))
            .await
            .map(drop)
    }
}

/// Whether containerd itself did not answer.
fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Cancelled)
}

/// Removes what an interrupted process has left.
///
/// # Errors
/// What containerd says.
pub(crate) async fn sweep(channel: &Channel) -> Result<()> {
    let request = ListContainersRequest {
        filters: vec![format!(r#"labels."{LABEL}"==true"#)],
    };
    let containers = ContainersClient::new(channel.clone())
        .list(within(CRI, request))
        .await
        .context("list the containers that were created ahead")?
        .into_inner()
        .containers;
    for container in containers {
        remove(channel, &container.id).await?;
    }
    Ok(())
}

async fn remove(channel: &Channel, id: &str) -> Result<()> {
    kill_task(channel, CRI, id)
        .await
        .with_context(|| format!("end the task {id}"))?;
    let request = DeleteContainerRequest { id: id.to_owned() };
    let answer = ContainersClient::new(channel.clone())
        .delete(within(CRI, request))
        .await;
    gone_is_fine(answer).with_context(|| format!("remove the container {id}"))
}

/// Its id, by the digest of the image's manifest.
fn id(digest: &str) -> String {
    let hex = digest.rsplit(':').next().unwrap_or(digest);
    format!("sampan-precompile-{}", &hex[..hex.len().min(16)])
}

/// A container without any file, in namespaces of its own, with a cgroup that goes with it.
fn spec(id: &str) -> Value {
    let namespaces = ["ipc", "mount", "network", "pid", "uts"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "args": ["/"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "linux": { "cgroupsPath": format!("/{id}"), "namespaces": namespaces },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_containerds() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(id(&digest), "sampan-precompile-0123456789abcdef");
        assert_eq!(id("short"), "sampan-precompile-short");
    }

    #[test]
    fn a_containerd_that_is_away_refuses_nothing() {
        assert!(is_away(&Status::unavailable("transport error")));
        assert!(!is_away(&Status::invalid_argument("no such import")));
    }
}
