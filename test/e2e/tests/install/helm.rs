//! helm, and the chart of this checkout.
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use cluster::Cluster;

/// The release's name and namespace.
pub(crate) const RELEASE: &str = "sampan";

/// helm for one cluster, with directories of its own.
pub(crate) struct Helm<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
}

impl<'a> Helm<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Result<Self> {
        Ok(Self {
            cluster,
            program: tools::helm()?,
        })
    }

    /// Installs the chart, or upgrades what is installed, with this image; all of it is ready when this returns.
    pub(crate) async fn bring(&self, verb: &str, image: &str) -> Result<()> {
        let (repository, tag) = image.rsplit_once(':').context("an image has a tag")?;
        let containerd = self.cluster.containerd();
        let texts = [
            ("image.repository", repository.to_owned()),
            ("image.tag", tag.to_owned()),
            (
                "containerd.socket",
                containerd.socket().display().to_string(),
            ),
            (
                "containerd.config",
                containerd.config().display().to_string(),
            ),
            // What stands for systemd here starts it again when it ends.
            ("containerd.restart", "signal".to_owned()),
            ("prefix", prefix(self.cluster).display().to_string()),
            ("mountPropagation", propagation()?.to_owned()),
        ];
        let mut arguments = vec![
            verb.to_owned(),
            RELEASE.to_owned(),
            chart().display().to_string(),
            "--wait".to_owned(),
            "--timeout=1m".to_owned(),
            "--set=runtimeClasses.wasmtime.enabled=true".to_owned(),
            "--set=containerd.restartTimeout=60".to_owned(),
        ];
        if verb == "install" {
            arguments.push("--create-namespace".to_owned());
        }
        arguments.extend(texts.map(|(name, value)| format!("--set-string={name}={value}")));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Err(error) = self.run(&arguments).await else {
            return Ok(());
        };
        bail!("{error:#}\n{}", self.seen().await)
    }

    /// What a person would look at when helm waits in vain.
    async fn seen(&self) -> String {
        let mut text = String::new();
        for question in [
            &["get", "pods", "--output=wide"][..],
            &["get", "events"],
            &["logs", "daemonset/sampan-node", "--tail=40"],
        ] {
            let output = tokio::process::Command::new(self.cluster.kubectl())
                .args(["--namespace", RELEASE])
                .args(question)
                .env("KUBECONFIG", self.cluster.kubeconfig())
                .output()
                .await;
            if let Ok(output) = output {
                text += &String::from_utf8_lossy(&output.stdout);
                text += &String::from_utf8_lossy(&output.stderr);
            }
        }
        text
    }

    /// Runs helm in the release's namespace and returns what it prints.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let home = self.cluster.containerd().scratch().dir().join("helm");
        let output = tokio::process::Command::new(&self.program)
            .args(["--namespace", RELEASE])
            .args(arguments)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {}", self.program.display()))?;
        if !output.status.success() {
            bail!(
                "helm {} ended with {}: {}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        String::from_utf8(output.stdout).context("read helm's output")
    }
}

/// The chart of this checkout.
pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/sampan")
}

/// As the chart's values say: another one where the root is a private mount, as it is without systemd.
fn propagation() -> Result<&'static str> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    // Number, parent, device, root, mount point, options, and then what it is shared with.
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .context("there is a root")?;
    let shared = root.split(' ').skip(6).take_while(|word| *word != "-");
    Ok(if shared.count() > 0 {
        "HostToContainer"
    } else {
        "None"
    })
}

/// Where the runtime is installed on the node.
pub(crate) fn prefix(cluster: &Cluster) -> PathBuf {
    cluster.containerd().scratch().dir().join("opt/sampan")
}
