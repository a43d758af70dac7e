//! The chart's admission policy, on a real API.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e_tests::{CLASS, Case, Space, cases, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::json;

use crate::helm::{Helm, RELEASE, chart};

/// How long the API may take to heed a policy.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    cases![a_pod_that_mounts_the_node_is_refused]
        .into_iter()
        .map(Case::alone)
        .collect()
}

pub(crate) async fn a_pod_that_mounts_the_node_is_refused(space: Arc<Space>) -> Result<()> {
    let world = space.world();
    let cluster = world.private_for("an admission policy")?;
    let chart = chart();
    let chart = chart.to_string_lossy();
    let rendered = Helm::new(cluster)?
        .run(&[
            "template",
            RELEASE,
            &chart,
            "--set=policy.hostPath=Deny",
            "--show-only=templates/policy.yaml",
            "--show-only=templates/runtimeclasses.yaml",
        ])
        .await?;
    let path = cluster.containerd().scratch().dir().join("policy.yaml");
    std::fs::write(&path, rendered).with_context(|| format!("write {}", path.display()))?;
    let path = path.to_string_lossy();

    world.kubectl(&["apply", "-f", &path]).await?;
    let outcome = heeded(&space).await;
    let removed = world.kubectl(&["delete", "-f", &path]).await;
    outcome.and(removed.map(drop))
}

async fn heeded(space: &Space) -> Result<()> {
    let refused = eventually("the policy to be heeded", DEADLINE, async || {
        Ok(mounted(space, "/", CLASS).await.err())
    })
    .await?;
    let refused = format!("{refused:#}");
    ensure!(
        refused.contains("volume node: hostPath / grants the guest a whole top-level directory"),
        "{refused}"
    );
    for path in ["/etc", "/var/"] {
        if mounted(space, path, CLASS).await.is_ok() {
            bail!("a pod that mounts {path} was taken");
        }
    }
    mounted(space, "/var/lib/data", CLASS).await?;
    // Containers of others are none of our business.
    mounted(space, "/", "").await
}

/// Asks the API for a pod with this directory of the node, without making it.
async fn mounted(space: &Space, path: &str, class: &str) -> Result<()> {
    let mut spec = json!({
        "containers": [{
            "name": "app", "image": "app", "command": ["/"],
            "volumeMounts": [{ "name": "node", "mountPath": "/node" }],
        }],
        "volumes": [{ "name": "node", "hostPath": { "path": path } }],
    });
    if !class.is_empty() {
        spec["runtimeClassName"] = json!(class);
    }
    let pod: Pod =
        serde_json::from_value(json!({ "metadata": { "name": "mounts" }, "spec": spec }))?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    space.api().create(&parameters, &pod).await?;
    Ok(())
}
