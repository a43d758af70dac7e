//! The chart as the real Helm renders it.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Made;
use crate::build::checkout;
use crate::{step, tools};

/// The namespace of `deploy/`.
const NAMESPACE: &str = "sampan-system";

/// The pinned Helm.
pub(super) struct Helm {
    program: PathBuf,
}

impl Helm {
    /// Builds it where it is missing.
    pub(super) fn find() -> Result<Self> {
        Ok(Self {
            program: tools::program("helm")?,
        })
    }

    /// `helm` with nothing of this machine's configuration.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("HELM_CONFIG_HOME", "/nonexistent")
            .env("HELM_CACHE_HOME", "/nonexistent")
            .env("HELM_DATA_HOME", "/nonexistent")
            .env("KUBECONFIG", "/nonexistent");
        command
    }

    /// What `helm install` would send.
    pub(super) fn template(&self, chart: &Path, further: &[&str]) -> Result<String> {
        let mut command = self.command();
        command
            .args(["template", "sampan"])
            .arg(chart)
            .args(["--namespace", NAMESPACE])
            .args(further);
        step::output(&mut command)
    }
}

/// The manifests of `deploy/`. They have neither the test nor the hook of the chart, which are Helm's.
pub(super) fn manifests(helm: &Helm, chart: &Path) -> Result<Vec<Made>> {
    let directory = checkout().join("deploy");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let head = "# Written by `cargo xtask chart` from charts/sampan.\n";
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    \
         # The node program works on the node itself (docs/operator.md). Nothing else belongs into this namespace.\n    \
         pod-security.kubernetes.io/enforce: privileged\n    \
         pod-security.kubernetes.io/warn: privileged\n    \
         pod-security.kubernetes.io/audit: privileged\n"
    );
    // As `kubectl apply` applies them, nobody manages the release.
    let rendered = |further: &[&str]| {
        let mut arguments = vec!["--no-hooks", "--skip-tests"];
        arguments.extend(further);
        let text = helm.template(chart, &arguments)?;
        let lines = text.lines().filter(|line| {
            !line.contains("helm.sh/chart:") && !line.contains("app.kubernetes.io/managed-by:")
        });
        Ok::<_, anyhow::Error>(lines.fold(String::new(), |text, line| text + line + "\n"))
    };
    Ok(vec![
        Made {
            path: directory.join("sampan.yaml"),
            content: format!("{head}{namespace}{}", rendered(&[])?),
        },
        Made {
            path: directory.join("runtimeclass-wasmtime.yaml"),
            content: format!(
                "{head}# The alias. The node program has to be told to register it: \
                 SAMPAN_RUNTIMECLASSES=sampan,sampan-dense,wasmtime.\n{}",
                rendered(&[
                    "--set",
                    "runtimeClasses.sampan.enabled=false,runtimeClasses.sampan-dense.enabled=false,\
                     runtimeClasses.wasmtime.enabled=true",
                    "--show-only",
                    "templates/runtimeclasses.yaml",
                ])?
            ),
        },
    ])
}
