//! `cargo xtask kind`: a cluster in Docker, the chart from this tree on it, and the end-to-end suite.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::build::{self, Processor, checkout};
use crate::{image, step, tools};

/// The cluster's name and that of its registry.
const NAME: &str = "sampan-e2e";
const REGISTRY: &str = "sampan-e2e-registry";

/// How containerd pulls images.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// As kind configures it: layers are thrown away once they are unpacked, for which containerd goes its older way
    Kind,
    /// As containerd does where nobody configures it
    Default,
}

/// Brings up a cluster, installs the chart, runs its test and the suite, and takes the cluster down.
pub(crate) fn run(pull: Pull, kubernetes: Option<&str>, arguments: &[String]) -> Result<()> {
    step::output(Command::new("docker").arg("version")).context("find a Docker that works")?;
    let processor = Processor::host()?;
    let archive = image::pack(processor, &build::run(processor, true)?, image::REFERENCE)?;
    let cluster = Cluster {
        kind: tools::program("kind")?,
        directory: tempfile::tempdir().context("make a directory for the kubeconfig")?,
    };
    let outcome = cluster.bring_up(pull, kubernetes).and_then(|registry| {
        cluster.install(&archive)?;
        cluster.suite(&registry, arguments)
    });
    let gone = cluster.take_down();
    outcome.and(gone)
}

struct Cluster {
    kind: PathBuf,
    directory: tempfile::TempDir,
}

impl Cluster {
    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Returns the address at which the nodes and this machine find the same registry.
    fn bring_up(&self, pull: Pull, kubernetes: Option<&str>) -> Result<String> {
        let config = self.directory.path().join("kind.yaml");
        std::fs::write(&config, configuration(pull)).context("write kind's configuration")?;
        let mut create = Command::new(&self.kind);
        create
            .args([
                "create", "cluster", "--name", NAME, "--wait", "3m", "--config",
            ])
            .arg(&config)
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        if let Some(minor) = kubernetes {
            create.args(["--image", &self.node_image(minor)?]);
        }
        step::run("a cluster in Docker", &mut create)?;

        step::run(
            "a registry in its network",
            docker().args([
                "run",
                "--detach",
                "--name",
                REGISTRY,
                "--network",
                "kind",
                "docker.io/library/registry:2",
            ]),
        )?;
        let address = step::output(docker().args([
            "inspect",
            REGISTRY,
            "--format",
            "{{.NetworkSettings.Networks.kind.IPAddress}}:5000",
        ]))?;
        let address = address.trim().to_owned();
        // Without TLS, which containerd takes from loopback alone unless it is told.
        let hosts = format!(
            "mkdir -p /etc/containerd/certs.d/{address} && printf '[host.\"http://{address}\"]\\n' > /etc/containerd/certs.d/{address}/hosts.toml"
        );
        step::output(docker().args([
            "exec",
            &format!("{NAME}-control-plane"),
            "sh",
            "-c",
            &hosts,
        ]))?;
        Ok(address)
    }

    /// kind publishes images for the newest minor versions only; the others are made of Kubernetes' own releases.
    fn node_image(&self, minor: &str) -> Result<String> {
        let url = format!("https://dl.k8s.io/release/stable-{minor}.txt");
        let release = step::output(Command::new("curl").args([
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            &url,
        ]))?;
        let release = release.trim();
        if !release.starts_with(&format!("v{minor}.")) {
            bail!("{url} names `{release}`");
        }
        let image = format!("sampan-e2e/node:{release}");
        let mut build = Command::new(&self.kind);
        build.args([
            "build",
            "node-image",
            "--type",
            "release",
            release,
            "--image",
            &image,
        ]);
        step::run(&format!("a node image of Kubernetes {release}"), &mut build)?;
        Ok(image)
    }

    fn install(&self, archive: &Path) -> Result<()> {
        let mut load = Command::new(&self.kind);
        load.args(["load", "image-archive", "--name", NAME])
            .arg(archive);
        step::run("load the node program's image", &mut load)?;
        let helm = tools::program("helm")?;
        let chart = checkout().join("charts/sampan");
        let mut install = Command::new(&helm);
        install
            .env("KUBECONFIG", self.kubeconfig())
            .args(["install", "sampan"])
            .arg(chart)
            .args(["--namespace", "sampan-system", "--create-namespace"])
            .args([
                "--set",
                "image.pullPolicy=Never,runtimeClasses.wasmtime.enabled=true",
            ])
            .args(["--wait", "--timeout", "5m"]);
        step::run("install the chart", &mut install)?;
        let mut test = Command::new(&helm);
        test.env("KUBECONFIG", self.kubeconfig()).args([
            "test",
            "sampan",
            "--namespace",
            "sampan-system",
        ]);
        step::run("test the chart", &mut test)
    }

    fn suite(&self, registry: &str, arguments: &[String]) -> Result<()> {
        let mut suite = Command::new("cargo");
        suite
            .current_dir(checkout())
            .env("KUBECONFIG", self.kubeconfig())
            .env("SAMPAN_E2E_REGISTRY", registry)
            .args(["xtask", "e2e", "--"])
            .args(arguments);
        step::run("the suite", &mut suite)
    }

    /// Uninstalls first, since that is tried out too; what of it fails is told after all is gone.
    fn take_down(&self) -> Result<()> {
        let mut uninstall = Command::new(tools::program("helm")?);
        uninstall.env("KUBECONFIG", self.kubeconfig()).args([
            "uninstall",
            "sampan",
            "--namespace",
            "sampan-system",
            "--ignore-not-found",
            "--timeout",
            "10m",
        ]);
        let uninstalled = step::run("uninstall the chart", &mut uninstall);
        let removed = step::output(docker().args(["rm", "--force", "--volumes", REGISTRY]));
        let deleted = step::run(
            "take the cluster down",
            Command::new(&self.kind).args(["delete", "cluster", "--name", NAME]),
        );
        uninstalled.and(removed.map(drop)).and(deleted)
    }
}

fn docker() -> Command {
    Command::new("docker")
}

fn configuration(pull: Pull) -> String {
    let discard = pull == Pull::Kind;
    format!(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\ncontainerdConfigPatches:\n  - |-\n    \
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      discard_unpacked_layers = {discard}\n    \
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"/etc/containerd/certs.d\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two_ways_is_containerds_own() {
        assert!(configuration(Pull::Kind).contains("discard_unpacked_layers = true\n"));
        assert!(configuration(Pull::Default).contains("discard_unpacked_layers = false\n"));
    }
}
