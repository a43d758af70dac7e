//! Pods of more than one container, and manifests as people have them.
use std::sync::Arc;

use anyhow::Result;
use e2e_tests::{Case, Space, cases};
use serde_json::json;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        an_init_container_comes_first,
        a_native_sidecar_runs_beside,
        a_manifest_for_the_class_wasmtime_runs,
        limits_reach_the_guest,
    ]
}

pub(crate) async fn an_init_container_comes_first(space: Arc<Space>) -> Result<()> {
    let probe = space.world().guest("probe").await?;
    let mount = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{
            "name": "before", "image": probe, "volumeMounts": mount,
            "command": ["/", "write", "/shared/word", "from the first"],
        }],
        "containers": [{
            "name": "app", "image": probe, "volumeMounts": mount,
            "command": ["/", "cat", "/shared/word"],
        }],
        "volumes": [{ "name": "shared", "emptyDir": {} }],
    });
    space.pod("two", spec).await?;
    assert_eq!(space.written("two").await?.trim_end(), "from the first");
    assert_eq!(
        space.logs("two", "before").await?,
        "ok write /shared/word\n"
    );
    Ok(())
}

/// A sidecar is a native program: it shares the pod's network and volumes, is there before the guest, and does not hold a
/// pod whose work is done.
pub(crate) async fn a_native_sidecar_runs_beside(space: Arc<Space>) -> Result<()> {
    let (probe, http, busybox) = (
        space.world().guest("probe").await?,
        space.world().guest("http-p2").await?,
        space.world().busybox().await?,
    );
    let mount = json!([{ "name": "shared", "mountPath": "/shared" }]);
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{
            "name": "beside", "image": busybox, "restartPolicy": "Always", "volumeMounts": mount,
            "command": ["/bin/sh", "-c", "echo from beside > /shared/word; exec sleep 600"],
            "startupProbe": { "exec": { "command": ["/bin/cat", "/shared/word"] }, "periodSeconds": 1 },
        }],
        "containers": [{
            "name": "app", "image": probe, "volumeMounts": mount,
            "command": ["/", "cat", "/shared/word"],
        }],
        "volumes": [{ "name": "shared", "emptyDir": {} }],
        "terminationGracePeriodSeconds": 2,
    });
    space.pod("with-sidecar", spec).await?;
    assert_eq!(
        space.written("with-sidecar").await?.trim_end(),
        "from beside"
    );
    let what = "to have succeeded, its sidecar ended";
    space
        .pod_gives("with-sidecar", what, |pod| {
            let phase = pod.status.as_ref()?.phase.as_deref()?;
            (phase == "Succeeded").then_some(())
        })
        .await?;

    let spec = json!({
        "initContainers": [{
            "name": "beside", "image": busybox, "restartPolicy": "Always",
            "command": ["/bin/sleep", "600"],
        }],
        "containers": [{
            "name": "app", "image": http, "command": ["/"],
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        }],
        "terminationGracePeriodSeconds": 2,
    });
    space.pod("server", spec).await?;
    space.ready("server").await?;
    let command = ["/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
    let asked = space.exec("server", "beside", &command).await?;
    assert_eq!(asked.stdout, "hello from http-p2\n", "{asked:?}");
    Ok(())
}

pub(crate) async fn a_manifest_for_the_class_wasmtime_runs(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("hello-p2").await?;
    let spec = json!({
        "runtimeClassName": "wasmtime",
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": image, "command": ["/"] }],
    });
    space.pod("as-today", spec).await?;
    let logs = space.written("as-today").await?;
    assert!(logs.starts_with("hello from hello-p2\n"), "{logs}");
    Ok(())
}

pub(crate) async fn limits_reach_the_guest(space: Arc<Space>) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "app", "image": image, "command": ["/", "oom"],
            "resources": { "limits": { "memory": "64Mi", "cpu": "500m" } },
        }],
    });
    space.pod("limited", spec).await?;
    let logs = space.written("limited").await?;
    let refused: u32 = logs
        .strip_prefix("refused at ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or(u32::MAX);
    assert!((8..64).contains(&refused), "{logs}");
    Ok(())
}
