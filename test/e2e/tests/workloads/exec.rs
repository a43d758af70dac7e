//! Probes and hooks that execute something in a wasm container.
use std::sync::Arc;

use anyhow::{Context, Result};
use e2e_tests::{Case, Space, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases![a_probe_executes_the_debug_guest, a_hook_runs_before_the_end,]
}

pub(crate) async fn a_probe_executes_the_debug_guest(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "containers": [{
            "name": "app", "image": image, "command": ["/", "tick", "1000"],
            "readinessProbe": {
                "exec": { "command": ["sampan", "stat", "/data/open"] },
                "periodSeconds": 1, "timeoutSeconds": 10,
            },
            "livenessProbe": {
                "exec": { "command": ["sampan", "ls", "/data"] },
                "periodSeconds": 1, "timeoutSeconds": 10,
            },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "terminationGracePeriodSeconds": 1,
    });
    space.pod("probed", spec).await?;
    // It runs and is not ready, since the probe has failed.
    let what = "an unready container that runs";
    space
        .pod_gives("probed", what, |pod| {
            let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
            (status.started == Some(true) && !status.ready).then_some(())
        })
        .await?;
    e2e_tests::eventually(
        "the probe's failure to be told",
        std::time::Duration::from_secs(60),
        async || {
            let events = space.events_of("probed").await?;
            Ok(events
                .iter()
                .any(|event| event.contains("Readiness probe failed"))
                .then_some(()))
        },
    )
    .await?;
    let command = ["/", "write", "/data/open", "yes"];
    let written = space.exec("probed", "app", &command).await?;
    assert_eq!(
        (written.code, written.stdout.as_str()),
        (0, "ok write /data/open\n")
    );
    space.ready("probed").await?;
    let missing = space
        .exec("probed", "app", &["sampan", "cat", "/data/nothing"])
        .await?;
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("/data/nothing"), "{missing:?}");
    Ok(())
}

pub(crate) async fn a_hook_runs_before_the_end(space: Arc<Space>) -> Result<()> {
    let cluster = space
        .world()
        .private_for("a look at what a hook has written on the node")?;
    let directory = cluster.containerd().scratch().dir().join(space.name());
    std::fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
    let image = space.world().guest("probe").await?;
    let write = |file: &str| {
        let path = format!("/data/{file}");
        json!({ "exec": { "command": ["/", "write", path, "told"] } })
    };
    let spec = json!({
        "containers": [{
            "name": "app", "image": image, "command": ["/", "tick", "1000"],
            "lifecycle": { "postStart": write("began"), "preStop": write("ends") },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        }],
        "volumes": [{ "name": "data", "hostPath": { "path": directory, "type": "Directory" } }],
    });
    space.pod("hooked", spec).await?;
    space.ready("hooked").await?;
    assert_eq!(std::fs::read_to_string(directory.join("began"))?, "told");
    assert!(!directory.join("ends").exists());
    space.delete_pod("hooked").await?;
    assert_eq!(std::fs::read_to_string(directory.join("ends"))?, "told");
    Ok(())
}
