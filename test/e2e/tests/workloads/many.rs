//! Many pods at once.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e_tests::{Case, Space, cases, class, eventually, is_ready};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

const PODS: usize = 100;
/// How long all of them may take to be ready.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn cases() -> Vec<Case> {
    // It counts what the node compiles.
    cases![a_hundred_pods_of_a_fresh_image_compile_once]
        .into_iter()
        .map(Case::alone)
        .collect()
}

pub(crate) async fn a_hundred_pods_of_a_fresh_image_compile_once(space: Arc<Space>) -> Result<()> {
    let cluster = space
        .world()
        .private_for("counting what the node compiles")?;
    let compilations = || cluster.containerd().log().matches("compiling ").count();
    let before = compilations();
    let image = space.world().fresh_guest("http-p2").await?.reference;
    let pods: Api<Pod> = space.api();
    let create = async |number: usize| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": format!("one-of-many-{number}") },
            "spec": {
                "runtimeClassName": class(),
                "containers": [{
                    "name": "app", "image": image, "command": ["/"],
                    "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 2 },
                }],
            },
        }))?;
        pods.create(&PostParams::default(), &pod)
            .await
            .context("create a pod")
    };
    futures::future::try_join_all((0..PODS).map(create)).await?;
    let all = eventually("all pods to be ready", DEADLINE, async || {
        let list = pods.list(&ListParams::default()).await?.items;
        let ready = list.iter().filter(|pod| is_ready(pod)).count();
        Ok((ready == PODS).then_some(list))
    })
    .await?;
    for pod in &all {
        let status = pod
            .status
            .as_ref()
            .context("a pod that is ready has a status")?;
        for container in status.container_statuses.iter().flatten() {
            assert_eq!(container.restart_count, 0, "{container:?}");
        }
    }
    assert_eq!(compilations() - before, 1);
    Ok(())
}
