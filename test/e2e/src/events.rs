//! What the cluster says about its objects.
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

/// The events of a namespace, or of one object in it: reason and message, in the order in which they are listed.
pub(crate) async fn of(
    client: &Client,
    namespace: &str,
    object: Option<&str>,
) -> Result<Vec<String>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let parameters = match object {
        Some(name) => ListParams::default().fields(&format!("involvedObject.name={name}")),
        None => ListParams::default(),
    };
    let list = events
        .list(&parameters)
        .await
        .with_context(|| format!("list the events of {namespace}"))?;
    Ok(list
        .into_iter()
        .map(|event| {
            format!(
                "{} {}: {}",
                event.involved_object.name.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            )
        })
        .collect())
}
