//! Events of pods.
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::MANAGER;
use crate::incidents::Entry;

/// Who tells. It may write events, and read nothing.
#[derive(Clone)]
pub struct Teller {
    pub(super) client: Client,
    pub(super) node: String,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Teller")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It has this name.
    As(String),
    /// The pod's namespace is gone, or goes.
    Nowhere,
}

impl Teller {
    /// Writes an event, or that it happened again.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn tell(&self, entry: &Entry) -> Result<Posted> {
        let namespace = &entry.incident.labels.namespace;
        let events = Api::<Event>::namespaced(self.client.clone(), namespace);
        if let Some(name) = &entry.event {
            let again = json!({
                "count": entry.count,
                "lastTimestamp": Time(time(entry.incident.at)),
                "message": entry.incident.message,
            });
            let patched = events
                .patch(name, &PatchParams::default(), &Patch::Merge(again))
                .await;
            match patched {
                Ok(_) => return Ok(Posted::As(name.clone())),
                // Kubernetes has forgotten it: it is told anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).context("say that it happened again"),
            }
        }
        let event = event(entry, &self.node);
        let name = event.metadata.name.clone().unwrap_or_default();
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(Posted::As(name)),
            Err(kube::Error::Api(status))
                if status.code == 404
                    || status.code == 403 && status.message.contains("being terminated") =>
            {
                Ok(Posted::Nowhere)
            }
            Err(error) => Err(error)
                .with_context(|| format!("create the event {name} in the namespace {namespace}")),
        }
    }
}

fn time(milliseconds: u64) -> Timestamp {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|it| Timestamp::from_millisecond(it).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

fn event(entry: &Entry, node: &str) -> Event {
    let labels = &entry.incident.labels;
    let (first, last) = (time(entry.first), time(entry.incident.at));
    // As kubelet names them; two reasons may come in one millisecond.
    let name = format!(
        "{}.{:x}{:x}",
        labels.pod,
        last.as_millisecond(),
        entry.incident.reason as u8
    );
    // As the kubelet has it, so that `kubectl describe pod` says which container is meant.
    let field =
        (!labels.container.is_empty()).then(|| format!("spec.containers{{{}}}", labels.container));
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(labels.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(labels.pod.clone()),
            namespace: Some(labels.namespace.clone()),
            uid: Some(labels.uid.clone()),
            field_path: field,
            ..ObjectReference::default()
        },
        action: Some("Run".to_owned()),
        reason: Some(entry.incident.reason.name().to_owned()),
        message: Some(entry.incident.message.clone()),
        type_: Some("Warning".to_owned()),
        event_time: Some(MicroTime(first)),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(last)),
        count: i32::try_from(entry.count).ok(),
        reporting_component: Some(MANAGER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        source: Some(EventSource {
            component: Some(MANAGER.to_owned()),
            host: Some(node.to_owned()),
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;
