//! The node as the cluster and the host see it.
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::{Cluster, NODE};
use e2e_tests::{READY, Space, eventually};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::helm::prefix;

/// How long the node program may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long containerd may take to come back.
const BACK: Duration = Duration::from_secs(30);

/// The annotations of an installed node.
pub(crate) const ANNOTATIONS: [&str; 5] = [
    "sampan.dev/shim-version",
    "sampan.dev/engine-version",
    "sampan.dev/wasi-version",
    "sampan.dev/containerd-version",
    "sampan.dev/runtimeclasses",
];

/// The node's object.
pub(crate) async fn node(cluster: &Cluster) -> Result<Node> {
    let nodes: Api<Node> = Api::all(cluster.client());
    nodes.get(NODE).await.context("ask for the node")
}

/// Labels and annotations of ours.
pub(crate) async fn ours(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let metadata = node(cluster).await?.metadata;
    let labels = metadata.labels.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    Ok(labels
        .into_iter()
        .chain(annotations)
        .filter(|(name, _)| name.starts_with("sampan.dev/"))
        .collect())
}

/// Waits until the node is labelled and runs the binaries with this hash, or with any other than `not`.
pub(crate) async fn runs(cluster: &Cluster, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let current = prefix(cluster).join("current");
    eventually("the node to run other binaries", DEADLINE, async || {
        let labelled = ours(cluster).await?.get(READY).map(String::as_str) == Some("true");
        let hash = fs::read_link(&current)
            .ok()
            .map(|path| path.display().to_string());
        Ok(hash.filter(|hash| labelled && wanted(hash)))
    })
    .await
}

/// The programs that supervisors of our containers execute, by their process ids.
pub(crate) fn supervisors(cluster: &Cluster) -> BTreeMap<u32, PathBuf> {
    cluster
        .containerd()
        .supervisors()
        .into_iter()
        .filter_map(|pid| Some((pid, fs::read_link(format!("/proc/{pid}/exe")).ok()?)))
        .collect()
}

/// The node is ready, its containerd answers, and its native pod runs on.
pub(crate) async fn is_whole(space: &Space, cluster: &Cluster) -> Result<()> {
    ensure!(
        cluster::is_ready(&node(cluster).await?),
        "the node is not ready"
    );
    // containerd may be on its way from or to the restart that the program asked for.
    let what = "containerd to execute something in a native pod";
    eventually(what, BACK, async || {
        let executed = space.exec("neighbour", "app", &["/bin/true"]).await;
        Ok(executed.is_ok_and(|it| it.code == 0).then_some(()))
    })
    .await
}
