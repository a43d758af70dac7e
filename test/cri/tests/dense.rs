//! Ten pods with one supervisor: CRI sees each as its own, and the end of each when the supervisor dies.
//! Whatever `SAMPAN_SCOPE` says.

use std::collections::BTreeSet;

use anyhow::Result;
use cri_tests::{House, house_of, removed, spinning};
use futures::future::try_join_all;
use harness::process::{ended, parent_of, signal};
use harness::{Containerd, Cri, CriContainer, Handler, Pod, Version};
use k8s_cri::v1::PodSandboxState;
use nix::sys::signal::Signal::SIGKILL;

const PODS: usize = 10;
const HANDLER: &str = "dense";

async fn dense(version: Version) -> Result<Option<House>> {
    let handler = Handler::new(HANDLER, "io.containerd.sampan-dense.v1");
    let handler = handler.option("SystemdCgroup", false);
    house_of(Containerd::builder().version(version).handler(handler)).await
}

/// Pods with a container each, all at once.
async fn pods<'a>(
    cri: &Cri<'a>,
    image: &str,
    number: usize,
) -> Result<Vec<(Pod<'a>, CriContainer<'a>)>> {
    try_join_all((0..number).map(async |_| {
        let pod = cri.pod(HANDLER).run().await?;
        let container = spinning(&pod, "guest", image).await?;
        anyhow::Ok((pod, container))
    }))
    .await
}

async fn supervisors(pods: &[(Pod<'_>, CriContainer<'_>)]) -> Result<BTreeSet<u32>> {
    let mut supervisors = BTreeSet::new();
    for (_, container) in pods {
        supervisors.insert(parent_of(container.pid().await?)?);
    }
    Ok(supervisors)
}

async fn killed(version: Version) -> Result<()> {
    let Some(house) = dense(version).await? else {
        return Ok(());
    };
    let image = house.pulled_guest("probe", "wasip1").await?;
    let cri = house.containerd.cri().await?;
    let mut ten = pods(&cri, &image, PODS).await?;
    assert_eq!(supervisors(&ten).await?.len(), 1);

    // One goes, and is all that goes.
    if let Some((pod, container)) = ten.pop() {
        container.stop(0).await?;
        removed(&pod).await?;
    }
    for (pod, _) in &ten {
        assert_eq!(house.pod_state(pod).await?, PodSandboxState::SandboxReady);
    }

    let before = supervisors(&ten).await?;
    for supervisor in &before {
        signal(*supervisor, SIGKILL)?;
        ended(*supervisor).await?;
    }
    for (pod, container) in &ten {
        assert_ne!(container.wait().await?.exit_code, 0);
        house.not_ready(pod).await?;
    }
    // As the kubelet does: new pods before the old ones are removed.
    let again = pods(&cri, &image, 3).await?;
    let after = supervisors(&again).await?;
    assert!(after.len() == 1 && after.is_disjoint(&before), "{after:?}");
    for (pod, _) in ten.iter().chain(&again) {
        removed(pod).await?;
    }
    for supervisor in after {
        ended(supervisor).await?;
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_is_the_end_of_ten_pods_on_2() -> Result<()> {
    killed(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_is_the_end_of_ten_pods_on_1_7() -> Result<()> {
    killed(Version::V1_7).await
}
