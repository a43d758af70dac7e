//! From `kubectl apply` to Ready, in the cluster of KUBECONFIG: what a person waits for, scheduler and kubelet included.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::figures::{Table, decimal, interval, multiple};
use crate::measure::order_of;
use crate::options::Options;
use crate::statistics::Samples;

/// The name that stands for no RuntimeClass.
const NONE: &str = "-";
const READY_WITHIN: &str = "120s";

/// Pods of each class in turn, each applied, waited for and deleted; then the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let classes = &options.cluster;
    ensure!(
        options.image.is_some() || classes.iter().all(|class| class == NONE),
        "name an image for the pods that have a RuntimeClass: --image REFERENCE"
    );
    let namespace = format!("bench-{}", harness::unique());
    kubectl(&["create", "namespace", &namespace], None)?;
    let measured = rounds(options, classes, &namespace);
    // Also after a failure: the namespace is ours.
    let gone = kubectl(&["delete", "namespace", &namespace, "--wait=false"], None);
    let samples = measured?;
    gone?;
    print!("{}", table(classes, &samples));
    Ok(())
}

fn rounds(options: &Options, classes: &[String], namespace: &str) -> Result<Vec<Samples>> {
    let mut all = vec![Samples::default(); classes.len()];
    // The first round pulls the images and compiles, and does not count.
    for round in 0..=options.few {
        for turn in order_of(round, classes.len()) {
            let pod = format!("pod-{round}-{turn}");
            let manifest = manifest(options, &classes[turn], &pod);
            let target = format!("pod/{pod}");
            let zero = Instant::now();
            kubectl(&["apply", "-n", namespace, "-f", "-"], Some(&manifest))?;
            let timeout = format!("--timeout={READY_WITHIN}");
            let ready = [
                "wait",
                "-n",
                namespace,
                "--for=condition=Ready",
                &target,
                &timeout,
            ];
            kubectl(&ready, None)?;
            if round > 0 {
                all[turn].push(zero.elapsed());
            }
            kubectl(
                &["delete", "-n", namespace, &target, "--grace-period=1"],
                None,
            )?;
        }
    }
    Ok(all)
}

/// A pod that stays: Ready is told of running ones alone.
fn manifest(options: &Options, class: &str, name: &str) -> String {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "guest", "image": options.native_image}],
        },
    });
    if class != NONE {
        pod["spec"]["runtimeClassName"] = json!(class);
        let container = &mut pod["spec"]["containers"][0];
        container["image"] = json!(options.image);
        container["command"] = json!(["/"]);
        container["args"] = json!(["hold"]);
    }
    pod.to_string()
}

fn kubectl(arguments: &[&str], input: Option<&str>) -> Result<()> {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run kubectl: it must be on PATH")?;
    // Dropped at once: kubectl reads to the end.
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin
            .write_all(input.as_bytes())
            .context("write to kubectl")?;
    }
    let output = child.wait_with_output().context("wait for kubectl")?;
    if !output.status.success() {
        bail!(
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn table(classes: &[String], samples: &[Samples]) -> String {
    let mut table = Table::new(&["", "n", "median", "p95", "p99", "of the first"]);
    for (class, taken) in classes.iter().zip(samples) {
        let name = if class == NONE {
            "no RuntimeClass"
        } else {
            class
        };
        table.row(vec![
            name.to_owned(),
            taken.len().to_string(),
            interval(taken.estimate()),
            decimal(taken.quantile(0.95)),
            decimal(taken.quantile(0.99)),
            multiple(samples.first().and_then(|first| taken.ratio_to(first))),
        ]);
    }
    format!("kubectl apply to Ready, ms\n{}", table.render())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::manifest;
    use crate::options::Options;

    #[test]
    fn a_pod_has_a_class_only_where_one_is_named() {
        let words = [
            "bench",
            "--cluster",
            "sampan,-",
            "--image",
            "registry/hello:1",
        ];
        let options = Options::parse_from(words);
        let classed = manifest(&options, "sampan", "a");
        assert!(
            classed.contains("\"runtimeClassName\":\"sampan\"")
                && classed.contains("registry/hello:1")
        );
        let plain = manifest(&options, "-", "b");
        assert!(!plain.contains("runtimeClassName") && plain.contains("pause"));
    }
}
