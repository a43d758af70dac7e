use std::fmt;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Api, PostParams};

use super::{Kube, MANAGER};

/// Why an event is written: what `kubectl describe node` shows in the column of that name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The runtime is there and was tried.
    Installed,
    /// It could not be installed.
    InstallFailed,
    /// What was changed for it is as before.
    RolledBack,
    /// What is installed is not what it should be.
    Drift,
    /// The runtime is gone.
    Uninstalled,
}

impl Reason {
    pub(super) fn is_warning(self) -> bool {
        !matches!(self, Self::Installed | Self::Uninstalled)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Events of all programs stand in one list.
        write!(out, "Sampan{self:?}")
    }
}

/// The API server takes no longer message.
const LONGEST: usize = 1000;
/// Events of what belongs to no namespace lie in this one, by Kubernetes' rule.
const NAMESPACE: &str = "default";

pub(super) async fn tell(kube: &Kube, reason: Reason, message: &str) -> Result<()> {
    let now = jiff::Timestamp::now();
    let kind = if reason.is_warning() {
        "Warning"
    } else {
        "Normal"
    };
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", kube.node, now.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(kube.node.clone()),
            // As the kubelet does; `kubectl describe node` looks for it.
            uid: Some(kube.node.clone()),
            ..ObjectReference::default()
        },
        action: Some("Reconcile".to_owned()),
        reason: Some(reason.to_string()),
        message: Some(shortened(message)),
        type_: Some(kind.to_owned()),
        event_time: Some(MicroTime(now)),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        reporting_component: Some(MANAGER.to_owned()),
        reporting_instance: Some(kube.node.clone()),
        source: Some(EventSource {
            component: Some(MANAGER.to_owned()),
            host: Some(kube.node.clone()),
        }),
        ..Event::default()
    };
    Api::<Event>::namespaced(kube.client.clone(), NAMESPACE)
        .create(&PostParams::default(), &event)
        .await
        .map(drop)
        .context("create the event")
}

fn shortened(message: &str) -> String {
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(LONGEST - 3);
    format!("{}...", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_and_a_short_one_is_not() {
        assert_eq!(shortened("short"), "short");
        for long in ["x".repeat(5000), "ä".repeat(5000)] {
            let short = shortened(&long);
            assert!(short.len() <= LONGEST && short.ends_with("..."));
        }
    }
}
