//! Where pods may run.
use std::sync::Arc;

use anyhow::Result;
use e2e_tests::{Case, READY, Space, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    // It takes the label from the only node.
    cases![an_unlabelled_node_gets_no_pod]
        .into_iter()
        .map(Case::alone)
        .collect()
}

pub(crate) async fn an_unlabelled_node_gets_no_pod(space: Arc<Space>) -> Result<()> {
    space
        .world()
        .private_for("taking the label from the only node")?;
    space.world().label(false).await?;
    let waited = waits(&space).await;
    space.world().label(true).await?;
    let message = waited?;
    assert!(
        message.contains("0/1 nodes are available") && message.contains("node affinity/selector"),
        "{message}"
    );
    space.written("patient").await?;
    Ok(())
}

/// Creates a pod and returns why it is not scheduled.
async fn waits(space: &Space) -> Result<String> {
    let image = space.world().guest("hello").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": image, "command": ["/"] }],
    });
    let pod = space.pod("patient", spec).await?;
    // The RuntimeClass has put the selector there, so that the message and the manifest agree.
    let selector = pod
        .spec
        .and_then(|spec| spec.node_selector)
        .unwrap_or_default();
    assert_eq!(selector.get(READY).map(String::as_str), Some("true"));
    space
        .pod_gives("patient", "to be told unschedulable", |pod| {
            let status = pod.status.as_ref()?;
            let condition = status
                .conditions
                .iter()
                .flatten()
                .find(|condition| condition.reason.as_deref() == Some("Unschedulable"))?;
            assert_eq!(status.phase.as_deref(), Some("Pending"));
            condition.message.clone()
        })
        .await
}
