//! The whole life of an installation.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use cluster::Cluster;
use e2e_tests::{CLASS, Case, DENSE, READY, Space, cases, eventually, restarts};
use harness::Tree;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::helm::{Helm, RELEASE, prefix};
use crate::{node, payload};

const DEADLINE: Duration = Duration::from_secs(120);
/// Pods that live through an upgrade and a rollback.
const PODS: usize = 10;

pub(crate) fn cases() -> Vec<Case> {
    cases![installed_used_upgraded_rolled_back_and_taken_away]
        .into_iter()
        .map(Case::alone)
        .collect()
}

/// Everything of the node that an installation may touch.
pub(crate) fn places(cluster: &Cluster) -> Vec<PathBuf> {
    let containerd = cluster.containerd();
    let dir = containerd.scratch().dir();
    vec![
        containerd.config(),
        dir.join("conf.d"),
        dir.join("opt"),
        containerd.sampan_run(),
        containerd.sampan_store(),
        PathBuf::from("/etc/sampan"),
        PathBuf::from("/opt/sampan"),
        PathBuf::from("/var/lib/sampan"),
    ]
}

pub(crate) async fn installed_used_upgraded_rolled_back_and_taken_away(
    space: Arc<Space>,
) -> Result<()> {
    let world = space.world();
    let cluster = world.private_for("an installation from nothing")?;
    let shipped = payload::shipped()?;
    let newer = payload::newer(&shipped)?;
    let (one, two) = (
        world.push("node-one", || Ok(shipped)).await?,
        world.push("node-two", || Ok(newer)).await?,
    );
    let helm = Helm::new(cluster)?;
    std::fs::create_dir_all(cluster.containerd().scratch().dir().join("opt"))?;
    let before = Tree::of(&places(cluster))?;

    nothing_is_there(&space, cluster).await?;
    neighbour(&space).await?;
    helm.bring("install", &one).await?;
    let first = installed(cluster).await?;
    ensure!(
        before != Tree::of(&places(cluster))?,
        "the tree that is compared is not the one that is changed"
    );
    helm.run(&["test", RELEASE, "--timeout=2m"]).await?;
    a_trap_is_an_event(&space).await?;
    let running = deployed(&space).await?;
    // That nothing of it restarts is looked at in the end.
    serves(&space, "dense", DENSE).await?;

    helm.bring("upgrade", &two).await?;
    let second = node::runs(cluster, |hash| hash != first).await?;
    untouched(&space, cluster, &running, &first).await?;
    runs_with(&space, cluster, "after-upgrade", CLASS, &second).await?;
    runs_with(&space, cluster, "dense-after-upgrade", DENSE, &second).await?;

    helm.run(&["rollback", RELEASE, "1", "--wait", "--timeout=3m"])
        .await?;
    node::runs(cluster, |hash| hash == first).await?;
    untouched(&space, cluster, &running, &first).await?;
    runs_with(&space, cluster, "after-rollback", CLASS, &first).await?;

    deployments(&space)
        .delete("web", &DeleteParams::default())
        .await?;
    for pod in [
        "dense",
        "after-upgrade",
        "dense-after-upgrade",
        "after-rollback",
    ] {
        space.delete_pod(pod).await?;
    }
    eventually("the pods to be gone", DEADLINE, async || {
        Ok(pods(&space).await?.is_empty().then_some(()))
    })
    .await?;
    helm.run(&["uninstall", RELEASE, "--wait", "--timeout=3m"])
        .await?;
    gone(cluster).await?;
    let left = before.difference(&Tree::of(&places(cluster))?);
    ensure!(left.is_empty(), "left behind:\n{left}");
    // Native pods neither noticed anything nor need us.
    let neighbour = space.ready("neighbour").await?;
    ensure!(restarts(&neighbour).is_empty(), "{neighbour:?}");
    space.delete_pod("neighbour").await?;
    ensure!(
        cluster::is_ready(&node::node(cluster).await?),
        "the node is ready"
    );
    Ok(())
}

fn deployments(space: &Space) -> Api<Deployment> {
    space.api()
}

async fn nothing_is_there(space: &Space, cluster: &Cluster) -> Result<()> {
    assert_eq!(node::ours(cluster).await?, BTreeMap::new());
    let image = space.world().guest("hello").await?;
    let spec = json!({ "containers": [{ "name": "app", "image": image, "command": ["/"] }] });
    let Err(refused) = space.pod("early", spec).await else {
        bail!("a pod of a RuntimeClass that is not there was taken");
    };
    let refused = format!("{refused:#}");
    let missing = format!("RuntimeClass \"{}\" not found", e2e_tests::class());
    ensure!(refused.contains(&missing), "{refused}");
    Ok(())
}

/// What goes wrong with a pod is told by the node program.
async fn a_trap_is_an_event(space: &Space) -> Result<()> {
    let image = space.world().guest("probe").await?;
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": image, "command": ["/", "trap"] }],
    });
    space.pod("trapped", spec).await?;
    space.ended("trapped", "app").await?;
    let events: Api<Event> = space.api();
    let what = "an event of the trap";
    eventually(what, DEADLINE, async || {
        let events = events.list(&ListParams::default()).await?;
        let told = events.iter().any(|event| {
            event.reason.as_deref() == Some("SampanTrap")
                && event.involved_object.name.as_deref() == Some("trapped")
                && event.count == Some(1)
                && event
                    .message
                    .as_deref()
                    .is_some_and(|message| message.starts_with("trap: wasm `unreachable`"))
        });
        Ok(told.then_some(()))
    })
    .await?;
    space.delete_pod("trapped").await
}

/// A native pod that is there all the time.
pub(crate) async fn neighbour(space: &Space) -> Result<()> {
    let image = space.world().busybox().await?;
    let spec = json!({
        "runtimeClassName": null,
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "app", "image": image, "command": ["/bin/sleep", "3600"] }],
    });
    space.pod("neighbour", spec).await?;
    space.ready("neighbour").await?;
    Ok(())
}

/// What there has to be after an installation; returns the hash of the binaries.
async fn installed(cluster: &Cluster) -> Result<String> {
    let hash = node::runs(cluster, |_| true).await?;
    let ours = node::ours(cluster).await?;
    for annotation in node::ANNOTATIONS {
        ensure!(
            ours.get(annotation).is_some_and(|value| !value.is_empty()),
            "no {annotation}: {ours:?}"
        );
    }
    assert_eq!(
        ours["sampan.dev/runtimeclasses"],
        "sampan,sampan-dense,wasmtime"
    );
    let classes: Api<RuntimeClass> = Api::all(cluster.client());
    for name in [CLASS, DENSE, "wasmtime"] {
        let class = classes.get(name).await?;
        let selector = class.scheduling.and_then(|it| it.node_selector);
        assert_eq!(
            selector.unwrap_or_default().get(READY).map(String::as_str),
            Some("true")
        );
    }
    let events: Api<Event> = Api::namespaced(cluster.client(), "default");
    let events = events.list(&ListParams::default()).await?;
    let told = events
        .iter()
        .any(|event| event.reason.as_deref() == Some("SampanInstalled"));
    ensure!(told, "no event tells of the installation: {events:?}");
    Ok(hash)
}

/// Pods of the Deployment, by their uids, with the ids of their containers.
async fn pods(space: &Space) -> Result<BTreeMap<String, String>> {
    let pods: Api<Pod> = space.api();
    let list = pods.list(&ListParams::default().labels("app=web")).await?;
    list.into_iter()
        .map(|pod| {
            ensure!(restarts(&pod).is_empty(), "restarted: {:?}", pod.status);
            let id = pod
                .status
                .and_then(|it| it.container_statuses)
                .and_then(|it| it.into_iter().next()?.container_id)
                .unwrap_or_default();
            Ok((pod.metadata.uid.unwrap_or_default(), id))
        })
        .collect()
}

async fn deployed(space: &Space) -> Result<BTreeMap<String, String>> {
    let image = space.world().guest("http-p2").await?;
    space
        .create_object::<Deployment>(json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": PODS,
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": {
                        "runtimeClassName": CLASS,
                        "containers": [{
                            "name": "app", "image": image, "command": ["/"],
                            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
                            "livenessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 2 },
                        }],
                    },
                },
            },
        }))
        .await?;
    available(space).await?;
    let running = pods(space).await?;
    assert_eq!(running.len(), PODS);
    Ok(running)
}

async fn available(space: &Space) -> Result<()> {
    let deployments = deployments(space);
    eventually("the Deployment's pods", DEADLINE, async || {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        let available = status.available_replicas.unwrap_or_default();
        Ok((usize::try_from(available)? == PODS).then_some(()))
    })
    .await
}

/// The pods are the same, with the same containers, supervised by the binary that started them.
async fn untouched(
    space: &Space,
    cluster: &Cluster,
    running: &BTreeMap<String, String>,
    hash: &str,
) -> Result<()> {
    available(space).await?;
    assert_eq!(&pods(space).await?, running);
    let dir = prefix(cluster).join(hash);
    let supervisors = node::supervisors(cluster);
    let theirs = supervisors.values().filter(|exe| exe.starts_with(&dir));
    ensure!(
        theirs.count() >= PODS,
        "supervisors of {}: {supervisors:?}",
        dir.display()
    );
    Ok(())
}

/// A pod that answers requests.
async fn serves(space: &Space, name: &str, class: &str) -> Result<()> {
    let image = space.world().guest("http-p2").await?;
    let spec = json!({
        "runtimeClassName": class,
        "containers": [{
            "name": "app", "image": image, "command": ["/"],
            "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        }],
    });
    space.pod(name, spec).await?;
    space.ready(name).await.map(drop)
}

/// A pod that is made now runs with these binaries.
async fn runs_with(
    space: &Space,
    cluster: &Cluster,
    name: &str,
    class: &str,
    hash: &str,
) -> Result<()> {
    let before = node::supervisors(cluster);
    serves(space, name, class).await?;
    let dir = prefix(cluster).join(hash);
    let supervisors = node::supervisors(cluster);
    // The one for all pods may have served the canary already.
    let serves = |(pid, exe): (&u32, &PathBuf)| {
        exe.starts_with(&dir) && (class == DENSE || !before.contains_key(pid))
    };
    ensure!(
        supervisors.iter().any(serves),
        "new supervisors, one of which should be of {}: {supervisors:?}, before {before:?}",
        dir.display()
    );
    Ok(())
}

/// Nothing of ours is left in the cluster.
async fn gone(cluster: &Cluster) -> Result<()> {
    assert_eq!(node::ours(cluster).await?, BTreeMap::new());
    let classes: Api<RuntimeClass> = Api::all(cluster.client());
    let classes = classes.list(&ListParams::default()).await?.items;
    ensure!(classes.is_empty(), "left: {classes:?}");
    let pods: Api<Pod> = Api::namespaced(cluster.client(), RELEASE);
    for pod in pods.list(&ListParams::default()).await? {
        // helm keeps the pod of its test.
        let name = pod.metadata.name.unwrap_or_default();
        pods.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}
