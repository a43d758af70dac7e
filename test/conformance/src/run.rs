//! One run of critest on a containerd of its own, and what it reports.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::{Containerd, Registry};
use serde::Deserialize;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// With the first line of what it says.
    Failed(String),
    /// It found that the machine lacks what it tests.
    Skipped,
}

/// The tests of a run, by name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Runs critest with a handler.
///
/// # Errors
/// When it gives no report, or when something is left of the containers afterwards.
pub(crate) async fn critest(
    registry: &Registry,
    handler: &str,
    arguments: &[String],
) -> Result<Outcomes> {
    let critest = tools::critest()?;
    let containerd = Containerd::builder().mirror(registry).start().await?;
    let report = containerd.scratch().dir().join("critest.json");
    let log = containerd.scratch().dir().join("critest.log");
    let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    eprintln!("==> critest with the handler {handler} (five to fifteen minutes)");
    let began = Instant::now();
    let status = tokio::process::Command::new(&critest)
        .current_dir(containerd.scratch().dir())
        .arg(format!(
            "--runtime-endpoint=unix://{}",
            containerd.socket().display()
        ))
        .arg(format!("--runtime-handler={handler}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        // One order for all, so that a test meets the same neighbours with either handler.
        .args(["--ginkgo.seed=1", "--ginkgo.no-color"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share critest's log")?)
        .stderr(output)
        .status()
        .await
        .with_context(|| format!("start {}", critest.display()))?;
    eprintln!("    {:.0} s, {status}", began.elapsed().as_secs_f64());
    let text = fs::read(&report).with_context(|| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        format!(
            "read critest's report; the end of its log:\n{}",
            tail.join("\n")
        )
    })?;
    // A test that failed in the middle leaves its pods to whoever comes next.
    containerd
        .cri()
        .await?
        .remove_all_pods()
        .await
        .context("remove the pods that failed tests have left")?;
    containerd
        .assert_clean()
        .await
        .with_context(|| format!("what {handler} leaves"))?;
    read(&text)
}

/// The part of Ginkgo's report that we need (its package `types`, `Report`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    failure: Option<SpecFailure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecFailure {
    #[serde(default)]
    message: String,
}

fn read(text: &[u8]) -> Result<Outcomes> {
    let suites: Vec<Suite> = serde_json::from_slice(text).context("read critest's report")?;
    let outcomes: Outcomes = suites
        .into_iter()
        .flat_map(|suite| suite.spec_reports)
        .filter(|spec| spec.leaf_node_type == "It" && !spec.leaf_node_text.contains("benchmark"))
        .map(|spec| (name(&spec), outcome(&spec)))
        .collect();
    ensure!(!outcomes.is_empty(), "critest's report names no tests");
    Ok(outcomes)
}

/// All its texts, without labels in brackets: they are no part of what is tested.
fn name(spec: &Spec) -> String {
    let texts = spec.container_hierarchy_texts.iter().flatten();
    let words = texts
        .chain([&spec.leaf_node_text])
        .flat_map(|text| text.split_whitespace())
        .filter(|word| *word != "[k8s.io]" && *word != "[Conformance]");
    words.collect::<Vec<_>>().join(" ")
}

fn outcome(spec: &Spec) -> Outcome {
    match spec.state.as_str() {
        "passed" => Outcome::Passed,
        "skipped" | "pending" => Outcome::Skipped,
        state => {
            let message = spec.failure.as_ref().map_or("", |failure| &failure.message);
            let words: Vec<_> = message.split_whitespace().collect();
            let short: String = words.join(" ").chars().take(300).collect();
            Outcome::Failed(if short.is_empty() {
                state.to_owned()
            } else {
                short
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = br#"[{"SpecReports":[
            {"LeafNodeType":"BeforeSuite","LeafNodeText":"","State":"passed"},
            {"ContainerHierarchyTexts":["[k8s.io] Container","basic [Conformance]"],"LeafNodeType":"It",
             "LeafNodeText":"should stop","State":"failed","Failure":{"Message":"it\n  did not"}},
            {"ContainerHierarchyTexts":null,"LeafNodeType":"It","LeafNodeText":"else","State":"skipped"}]}]"#;
        let outcomes = read(text).expect("a report");
        let failed = Outcome::Failed("it did not".into());
        assert_eq!(outcomes["Container basic should stop"], failed);
        assert_eq!(outcomes["else"], Outcome::Skipped);
        assert_eq!(outcomes.len(), 2);
        assert!(read(b"[]").is_err());
    }
}
