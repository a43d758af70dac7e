//! Whose files a guest writes, and user namespaces.
use std::sync::Arc;

use anyhow::Result;
use e2e_tests::{Case, Space, cases, eventually, skip};
use serde_json::json;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        files_belong_to_the_user_and_group_of_the_pod,
        a_pod_without_the_users_of_the_host_runs,
    ]
}

pub(crate) async fn files_belong_to_the_user_and_group_of_the_pod(space: Arc<Space>) -> Result<()> {
    let (probe, busybox) = (
        space.world().guest("probe").await?,
        space.world().busybox().await?,
    );
    let mount = json!([{ "name": "data", "mountPath": "/data" }]);
    let spec = json!({
        "restartPolicy": "Never",
        "securityContext": { "runAsUser": 1234, "runAsGroup": 1235, "fsGroup": 2345, "runAsNonRoot": true },
        "initContainers": [{
            "name": "writes", "image": probe, "volumeMounts": mount,
            "command": ["/", "write", "/data/file", "mine"],
        }],
        "containers": [{
            "name": "app", "image": busybox, "volumeMounts": mount,
            "command": ["/bin/stat", "-c", "%u:%g", "/data/file"],
        }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    space.pod("owned", spec).await?;
    // The volume's directory hands its group on.
    assert_eq!(space.written("owned").await?, "1234:2345\n");
    Ok(())
}

pub(crate) async fn a_pod_without_the_users_of_the_host_runs(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "hostUsers": false,
        "restartPolicy": "Never",
        "containers": [{
            "name": "app", "image": image, "command": ["/", "write", "/data/file", "mine"],
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    space.pod("mapped", spec).await?;
    let what = "the pod to end, or to be refused";
    let refused = eventually(what, Duration::from_secs(60), async || {
        for event in space.events_of("mapped").await? {
            let failed = ["FailedCreatePodSandBox", "FailedMount", "Failed:"];
            if failed.iter().any(|reason| event.contains(reason)) {
                return Ok(Some(Some(event)));
            }
        }
        let ended = space
            .world()
            .kubectl(&[
                "get",
                "pod",
                "mapped",
                "--namespace",
                space.name(),
                "--output",
                "jsonpath={.status.phase}",
            ])
            .await?;
        Ok((ended == "Succeeded" || ended == "Failed").then_some(None))
    })
    .await?;
    if let Some(event) = refused {
        // The kubelet asks the runtime before it makes any. Of our own node it is known that it can.
        let cannot = event.contains("user namespaces") || event.contains("idmap");
        if cannot && space.world().private().is_none() {
            return Err(skip(event));
        }
        anyhow::bail!("{event}");
    }
    assert_eq!(space.written("mapped").await?, "ok write /data/file\n");
    Ok(())
}
