//! What the tests of the shim through CRI share: a containerd with a registry that it may pull from, and short runs.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use harness::{Containerd, ContainerdBuilder, Cri, Exit, Logs, Registry, Version};

/// A registry and a containerd with CRI that pulls from it.
#[derive(Debug)]
pub struct House {
    /// The containerd; dropped before the registry.
    pub containerd: Containerd,
    /// Where images are pushed to.
    pub registry: Registry,
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
