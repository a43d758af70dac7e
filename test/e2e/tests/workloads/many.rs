//! Many pods at once.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e_tests::{Case, Space, cases, class, eventually, is_ready};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

/// How many; `$SAMPAN_PODS` tries another number, of which the kubelet takes 1,000.
const PODS: u32 = 100;
/// How long each of them may keep the others waiting.
const EACH: Duration = Duration::from_secs(3);

pub(crate) fn cases() -> Vec<Case> {
    // It counts what the node compiles.
    cases![many_pods_of_a_fresh_image_compile_once]
        .into_iter()
        .map(Case::alone)
        .collect()
}

#[allow(clippy::print_stderr, reason = "how long they took")]
pub(crate) async fn many_pods_of_a_fresh_image_compile_once(space: Arc<Space>) -> Result<()> {
    let number = match std::env::var("SAMPAN_PODS") {
        Ok(number) => number.parse().context("read $SAMPAN_PODS")?,
        Err(_) => PODS,
    };
    let cluster = space
        .world()
        .private_for("counting what the node compiles")?;
    let log = || cluster.containerd().log();
    let before = log().matches("compiling ").count();
    let image = space.world().fresh_guest("http-p2").await?.reference;
    let pods: Api<Pod> = space.api();
    let create = async |index: u32| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": format!("one-of-many-{index}") },
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
    let began = Instant::now();
    futures::future::try_join_all((0..number).map(create)).await?;
    let all = eventually("all pods to be ready", number * EACH, async || {
        let list = pods.list(&ListParams::default()).await?.items;
        let ready = list.iter().filter(|pod| is_ready(pod)).count();
        Ok((ready == number as usize).then_some(list))
    })
    .await?;
    eprintln!("{number} pods ready after {:.1?}", began.elapsed());
    for pod in &all {
        let status = pod
            .status
            .as_ref()
            .context("a pod that is ready has a status")?;
        for container in status.container_statuses.iter().flatten() {
            assert_eq!(container.restart_count, 0, "{container:?}");
        }
    }
    harness::logged(log, "compiling ", before + 1).await
}
