//! The chart against Helm's own rules, its alerts against Prometheus', its manifests against Kubernetes' schemas, and with
//! values that are wrong.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tools::cache_dir;
use anyhow::{Context, Result, bail, ensure};

use super::render::Helm;
use crate::{python, step};

/// Kubernetes' minor versions that the chart is for.
const MINORS: std::ops::RangeInclusive<u32> = 31..=36;

/// What `--set` refuses, and what the message has to name.
const WRONG: &[(&str, &str)] = &[
    ("imge.tag=v1", "imge"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("image.digest=sha256:abc", "digest"),
    ("image.repository=", "repository"),
    ("imagePullSecrets={registry}", "imagePullSecrets"),
    ("tolerations[0].kee=pool", "kee"),
    ("nodeSelector.pool=1", "pool"),
    ("taint.effect=NoRun", "effect"),
    ("runtimeClasses.sampn.enabled=true", "sampn"),
    (
        "runtimeClasses.sampan.overhead.disk=1Gi",
        "/runtimeClasses/sampan/overhead",
    ),
    ("runtimeClasses.sampan.overhead.memory=little", "memory"),
    (
        "runtimeClasses.sampan.enabled=false,runtimeClasses.sampan-dense.enabled=false",
        "at least one",
    ),
    ("containerd.restart=docker", "restart"),
    ("containerd.socket=run/containerd.sock", "socket"),
    ("prefix=opt/sampan", "prefix"),
    ("onDelete=remove", "onDelete"),
    ("mountPropagation=Bidirectional", "mountPropagation"),
    ("uninstall.waitForPods=-1", "waitForPods"),
    ("canary.interval=1", "interval"),
    ("metrics.port=0", "port"),
    ("policy.hostPath=Refuse", "hostPath"),
    ("podMonitor.interval=often", "interval"),
    ("prometheusRule.enabld=true", "enabld"),
    (
        "traces.env[0].name=OTEL_A,traces.env[0].valueFrom.secret.name=b",
        "/traces/env/0/valueFrom",
    ),
    ("dashboard.labels=none", "labels"),
    ("securityContext.privilegd=true", "privilegd"),
    ("securityContext.runAsUser=1000", "runAsUser"),
    ("resources.request.cpu=1", "request"),
    ("maxUnavailable=0", "maxUnavailable"),
];

/// Runs all of it.
pub(crate) fn try_out() -> Result<()> {
    let chart = super::directory();
    let helm = Helm::find()?;
    super::settle(&super::from_values(&chart)?, true)?;
    super::settle(&super::render::manifests(&helm, &chart)?, true)?;

    let mut settings = vec![None];
    let mut files: Vec<PathBuf> = fs::read_dir(chart.join("ci"))
        .context("list the chart's values for tests")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    settings.extend(files.into_iter().map(Some));

    lint(&helm, &chart, &settings)?;
    wrong_values(&helm, &chart)?;
    super::rules::check(&chart)?;
    schemas(&helm, &chart, &settings)
}

fn lint(helm: &Helm, chart: &Path, settings: &[Option<PathBuf>]) -> Result<()> {
    for file in settings {
        let mut command = helm.command();
        command.args(["lint", "--strict"]).arg(chart);
        if let Some(file) = file {
            command.arg("--values").arg(file);
        }
        step::output(&mut command)?;
    }
    Ok(())
}

fn wrong_values(helm: &Helm, chart: &Path) -> Result<()> {
    for (value, named) in WRONG {
        match helm.template(chart, &["--set", value]) {
            Ok(_) => bail!("helm takes `--set {value}`"),
            Err(error) => ensure!(
                // The command itself is part of the message.
                format!("{error:#}").replace(value, "").contains(named),
                "helm refuses `--set {value}` without naming {named}: {error:#}"
            ),
        }
    }
    eprintln!("    {} wrong values are refused by name", WRONG.len());
    Ok(())
}

fn schemas(helm: &Helm, chart: &Path, settings: &[Option<PathBuf>]) -> Result<()> {
    let python = python::install(
        &cache_dir()?.join("tools"),
        include_str!("requirements.txt"),
        "Kubernetes' schemas from PyPI (110 MB)",
    )?;
    let plain: Vec<String> = super::render::manifests(helm, chart)?
        .into_iter()
        .map(|made| made.content)
        .collect();
    let mut checked = 0;
    for minor in MINORS {
        let version = format!("1.{minor}.0");
        let mut rendered = plain.clone();
        for file in settings {
            let mut further = vec!["--kube-version", &version];
            let file = file.as_ref().map(|file| file.to_string_lossy());
            if let Some(file) = &file {
                further.extend(["--values", file]);
            }
            rendered.push(helm.template(chart, &further)?);
        }
        checked += hold(&python, &rendered, minor)?;
        // A check that finds nothing wrong has to find something.
        let broken = rendered[0].replace("hostPID: true", "hostPids: true");
        let found = hold(&python, &[broken], minor)
            .err()
            .map(|error| error.to_string());
        ensure!(
            found
                .as_ref()
                .is_some_and(|error| error.contains("hostPids")),
            "a field that does not exist passes the schemas of {version}: {found:?}"
        );
    }
    eprintln!(
        "    {checked} manifests fit Kubernetes 1.{} to 1.{}",
        MINORS.start(),
        MINORS.end()
    );
    Ok(())
}

/// Validates the manifests of each text; returns how many there are.
fn hold(python: &python::Packages, rendered: &[String], minor: u32) -> Result<usize> {
    let directory = tempfile::tempdir().context("make a directory for rendered manifests")?;
    let mut command: Command = python.command("kubernetes_validate");
    command.args(["--strict", "--kubernetes-version", &format!("1.{minor}.0")]);
    for (index, text) in rendered.iter().enumerate() {
        let path = directory.path().join(format!("{index}.yaml"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        command.arg(path);
    }
    let output = command.output().context("start kubernetes-validate")?;
    // It says what is wrong on its standard output.
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "manifests do not fit Kubernetes 1.{minor}: {}{}",
        said.lines()
            .filter(|line| !line.starts_with("INFO "))
            .collect::<String>(),
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = || rendered.iter().flat_map(|text| text.lines());
    let passed = said
        .lines()
        .filter(|line| line.starts_with("INFO ") && line.ends_with(&format!("version 1.{minor}")))
        .count();
    // Definitions of others have no schema there.
    let foreign = ["kind: PodMonitor", "kind: PrometheusRule"];
    let foreign = lines().filter(|line| foreign.contains(line)).count();
    let kinds = lines().filter(|line| line.starts_with("kind: ")).count();
    ensure!(
        passed > 0 && passed + foreign == kinds,
        "{passed} of {kinds} manifests were held against 1.{minor}: {said}"
    );
    Ok(passed)
}
