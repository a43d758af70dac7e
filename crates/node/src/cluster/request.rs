//! Uninstalling everywhere: a Job of the chart asks the programs that run on the nodes, by an annotation of each node,
//! and waits for their answers. It needs no privilege but to write annotations.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{READY, SHIM, client};
use crate::settings::Uninstall;

/// The annotation: [`ASKED`], how pods are to be treated, or the node's answer why it could not.
pub const REQUEST: &str = "sampan.dev/uninstall";
/// What a request begins with; `requested`, `requested:force` or `requested:wait=SECONDS`.
const ASKED: &str = "requested";
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take beyond the time that pods have until one more node is done: one after the other restarts its
/// containerd.
const MARGIN: Duration = Duration::from_secs(180);

impl Uninstall {
    /// As a request's text.
    #[must_use]
    pub fn request(&self) -> String {
        match (self.force, self.wait_for_pods) {
            (true, _) => format!("{ASKED}:force"),
            (false, Some(seconds)) => format!("{ASKED}:wait={seconds}"),
            (false, None) => ASKED.to_owned(),
        }
    }

    /// Reads a request's text; `None` if it is an answer.
    #[must_use]
    pub fn of_request(text: &str) -> Option<Self> {
        let (word, how) = text.split_once(':').unwrap_or((text, ""));
        if word != ASKED {
            return None;
        }
        Some(Self {
            force: how == "force",
            wait_for_pods: how
                .strip_prefix("wait=")
                .and_then(|seconds| seconds.parse().ok()),
            cluster: false,
        })
    }
}

/// Asks every node that has the runtime to take it away, and waits.
///
/// # Errors
/// One line per node that is left, when none has come further for too long, or all of these have said why they cannot.
pub async fn uninstall_everywhere(how: &Uninstall) -> Result<()> {
    let api = Api::<Node>::all(client().await?);
    let mut changed = Instant::now();
    let mut last = BTreeMap::new();
    let patience = Duration::from_secs(how.wait_for_pods.unwrap_or_default()) + MARGIN;
    for node in with_runtime(&api).await?.keys() {
        annotate(&api, node, Some(&how.request())).await?;
    }
    loop {
        let left = with_runtime(&api).await?;
        if left.is_empty() {
            return Ok(());
        }
        let answered = left
            .values()
            .all(|answer| Uninstall::of_request(answer).is_none() && !answer.is_empty());
        if left != last {
            changed = Instant::now();
            last.clone_from(&left);
        }
        if answered || changed.elapsed() > patience {
            for node in left.keys() {
                annotate(&api, node, None).await?;
            }
            let lines: Vec<String> = left
                .iter()
                .map(|(node, answer)| match Uninstall::of_request(answer) {
                    None if !answer.is_empty() => format!("{node}: {answer}"),
                    _ => format!("{node}: no answer: does its pod run?"),
                })
                .collect();
            bail!("the runtime is still there on:\n{}", lines.join("\n"));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Nodes with the runtime, with what their annotation says.
async fn with_runtime(api: &Api<Node>) -> Result<BTreeMap<String, String>> {
    let nodes = api
        .list(&ListParams::default())
        .await
        .context("list the nodes")?;
    Ok(nodes
        .into_iter()
        .filter(|node| node.annotations().contains_key(SHIM) || node.labels().contains_key(READY))
        .map(|node| {
            let answer = node.annotations().get(REQUEST).cloned();
            (node.name_any(), answer.unwrap_or_default())
        })
        .collect())
}

async fn annotate(api: &Api<Node>, node: &str, value: Option<&str>) -> Result<()> {
    let patch = json!({ "metadata": { "annotations": { REQUEST: value } } });
    let written = api
        .patch(node, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match written {
        // A node that is gone has no runtime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other
            .map(drop)
            .with_context(|| format!("annotate the node {node}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for (force, wait_for_pods) in [(false, None), (true, None), (false, Some(300))] {
            let how = Uninstall {
                force,
                wait_for_pods,
                cluster: false,
            };
            assert_eq!(Uninstall::of_request(&how.request()), Some(how));
        }
        assert_eq!(Uninstall::of_request("failed: pods run"), None);
        assert_eq!(Uninstall::of_request(""), None);
    }
}
