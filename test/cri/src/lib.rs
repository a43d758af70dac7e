//! What the tests of the shim through CRI share: a containerd with a registry that it may pull from, and short runs.
#![forbid(unsafe_code)]

mod kubelet;
mod talk;

use std::time::Duration;

use anyhow::{Context, Result};
use harness::image::{self, Content};
use harness::{
    Containerd, ContainerdBuilder, Cri, CriContainer, Exit, Handler, Logs, Pod, Registry, Version,
    guest, until,
};
use k8s_cri::v1::{PodSandboxState, PodSandboxStatusRequest};

pub use kubelet::{Projected, Volumes};
pub use talk::{At, crictl};

/// How long CRI may take to notice what has happened.
const DEADLINE: Duration = Duration::from_secs(20);

/// A registry and a containerd with CRI that pulls from it.
#[derive(Debug)]
pub struct House {
    /// The containerd; dropped before the registry.
    pub containerd: Containerd,
    /// Where images are pushed to.
    pub registry: Registry,
}

impl House {
    /// Pushes an image as `NAME:v1` and has CRI pull it; returns its reference.
    ///
    /// # Errors
    /// When the registry or CRI refuses it.
    pub async fn pulled(&self, name: &str, content: &(impl Content + Sync)) -> Result<String> {
        let reference = self.registry.push(&format!("{name}:v1"), content).await?;
        self.containerd.cri().await?.pull(&reference).await?;
        Ok(reference)
    }

    /// The same with a guest of `test/guests` as a CNCF artifact; `os` is `wasip1` or `wasip2`.
    ///
    /// # Errors
    /// As [`House::pulled`], or when the guest was not built.
    pub async fn pulled_guest(&self, name: &str, os: &str) -> Result<String> {
        let image = image::cncf(guest(&format!("{name}.wasm"))?, os);
        self.pulled(name, &image).await
    }

    /// What CRI says of a pod.
    ///
    /// # Errors
    /// What CRI says instead.
    pub async fn pod_state(&self, pod: &Pod<'_>) -> Result<PodSandboxState> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: pod.id().to_owned(),
            verbose: false,
        };
        let mut runtime = self.containerd.cri().await?.runtime();
        let status = runtime
            .pod_sandbox_status(request)
            .await?
            .into_inner()
            .status;
        Ok(status.context("the pod has a status")?.state())
    }

    /// Waits until CRI has noticed that a pod is no more.
    ///
    /// # Errors
    /// When it does not.
    pub async fn not_ready(&self, pod: &Pod<'_>) -> Result<()> {
        until("the pod not to be ready", DEADLINE, async || {
            Ok((self.pod_state(pod).await? == PodSandboxState::SandboxNotready).then_some(()))
        })
        .await
    }
}

/// A container that uses a processor until it is ended, and has begun with it; its image is that of the probe.
///
/// # Errors
/// What CRI says.
pub async fn spinning<'a>(pod: &Pod<'a>, name: &str, image: &str) -> Result<CriContainer<'a>> {
    let container = pod
        .container(name, image)
        .command(["/", "spin"])
        .create()
        .await?;
    container.start().await?;
    container.stdout_contains("spinning").await?;
    Ok(container)
}

/// Removes a pod as the kubelet does: again, until CRI has noticed all that has happened.
///
/// # Errors
/// When it never does.
pub async fn removed(pod: &Pod<'_>) -> Result<()> {
    until("CRI to remove the pod", DEADLINE, async || {
        Ok(pod.remove().await.ok())
    })
    .await
}

/// Starts both; `None` where the test has to be skipped, which has been said then.
///
/// # Errors
/// When one of them does not come up.
pub async fn house(version: Version) -> Result<Option<House>> {
    house_of(Containerd::builder().version(version)).await
}

/// As [`house`], with a containerd that a test has prepared.
///
/// # Errors
/// When one of them does not come up.
pub async fn house_of(builder: ContainerdBuilder) -> Result<Option<House>> {
    if !harness::able()? {
        return Ok(None);
    }
    let registry = Registry::start()?;
    let containerd = builder.registry(&registry).start().await?;
    Ok(Some(House {
        containerd,
        registry,
    }))
}

/// A containerd 2.x whose pods of handler `sampan` are made by the shim (`sandboxer = "shim"`).
#[must_use]
pub fn sandboxer() -> ContainerdBuilder {
    let handler = Handler::new("sampan", harness::runtime()).option("SystemdCgroup", false);
    Containerd::builder().handler(handler.sandboxer("shim"))
}

/// Runs a container of an image that was pulled to its end, in a pod of its own.
///
/// # Errors
/// What CRI says.
pub async fn run(cri: &Cri<'_>, image: &str, command: &[&str]) -> Result<(Exit, Logs)> {
    let pod = cri.pod("sampan").run().await?;
    let ran = async {
        let container = pod
            .container("guest", image)
            .command(command.iter().copied())
            .create()
            .await
            .with_context(|| format!("create a container of {image}"))?;
        container
            .start()
            .await
            .with_context(|| format!("start a container of {image}"))?;
        let exit = container.wait().await?;
        anyhow::Ok((exit, container.logs()?))
    }
    .await;
    pod.remove().await.context("remove the pod")?;
    ran
}
