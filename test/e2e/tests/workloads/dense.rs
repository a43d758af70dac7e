//! One supervisor for all pods of a node (RuntimeClass `sampan-dense`).
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cluster::Cluster;
use e2e_tests::{CLASS, CRASHES, Case, DENSE, Space, cases, is_ready, restarts};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PODS: usize = 5;
const PROGRAM: &str = "containerd-shim-sampan-dense-v1";

pub(crate) fn cases() -> Vec<Case> {
    // They count the node's supervisors, and end one that others may need.
    cases![
        one_supervisor_serves_all_pods,
        its_death_starts_all_of_them_anew,
    ]
    .into_iter()
    .map(Case::alone)
    .collect()
}

/// The supervisors of all pods of the class.
fn supervisors(cluster: &Cluster) -> Vec<u32> {
    let all = cluster.containerd().supervisors();
    all.into_iter()
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(PROGRAM)
        })
        .collect()
}

async fn server(space: &Space, name: &str, class: &str, labels: Value) -> Result<()> {
    let image = space.world().guest("http-p2").await?;
    let metadata = json!({ "labels": labels, "annotations": { "sampan.dev/access-log": "json" } });
    let spec = json!({
        "runtimeClassName": class,
        "containers": [{
            "name": "app", "image": image, "command": ["/"],
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        }],
        "terminationGracePeriodSeconds": 2,
    });
    space.pod_with(name, metadata, spec).await.map(drop)
}

/// Several at once, all of them ready when this returns.
async fn servers(space: &Space, labels: Value) -> Result<Vec<String>> {
    let names: Vec<String> = (0..PODS).map(|number| format!("dense-{number}")).collect();
    let make = names
        .iter()
        .map(|name| server(space, name, DENSE, labels.clone()));
    futures::future::try_join_all(make).await?;
    for name in &names {
        space.ready(name).await?;
    }
    Ok(names)
}

/// What people do with a pod.
async fn works(space: &Space, name: &str) -> Result<()> {
    let answer = space.get(name, "/").await?;
    assert_eq!(answer.status, 200, "{name}: {answer:?}");
    let executed = space.exec(name, "app", &["sampan", "ls", "/"]).await?;
    assert_eq!(executed.code, 0, "{name}: {executed:?}");
    let logs = space.logs(name, "app").await?;
    ensure!(logs.contains("\"status\":200"), "{name} has logged: {logs}");
    Ok(())
}

pub(crate) async fn one_supervisor_serves_all_pods(space: Arc<Space>) -> Result<()> {
    // That they have not restarted is looked at when the namespace is closed.
    for name in servers(&space, json!({})).await? {
        works(&space, &name).await?;
    }
    // Elsewhere the node cannot be looked at.
    if let Some(cluster) = space.world().private() {
        let supervisors = supervisors(cluster);
        assert_eq!(supervisors.len(), 1, "{supervisors:?}");
    }
    Ok(())
}

pub(crate) async fn its_death_starts_all_of_them_anew(space: Arc<Space>) -> Result<()> {
    let cluster = space.world().private_for("ending a supervisor")?;
    // It has one of its own, and is not meant to notice anything.
    server(&space, "neighbour", CLASS, json!({})).await?;
    space.ready("neighbour").await?;
    let names = servers(&space, json!({ CRASHES: "meant" })).await?;
    let [supervisor] = supervisors(cluster)[..] else {
        anyhow::bail!("there is not one supervisor");
    };
    harness::process::signal(supervisor, Signal::SIGKILL)?;
    harness::process::ended(supervisor).await?;
    for name in &names {
        let what = "to be ready, started anew";
        space
            .pod_gives(name, what, |pod| {
                (is_ready(pod) && !restarts(pod).is_empty()).then_some(())
            })
            .await?;
        works(&space, name).await?;
    }
    let [successor] = supervisors(cluster)[..] else {
        anyhow::bail!("there is not one supervisor afterwards");
    };
    ensure!(successor != supervisor, "it lives on");
    let neighbour = space.ready("neighbour").await?;
    ensure!(restarts(&neighbour).is_empty(), "{neighbour:?}");
    for name in &names {
        space.delete_pod(name).await.context("delete a pod")?;
    }
    Ok(())
}
