//! A process of a pod is killed: the kubelet sees what has happened, can remove the pod, and nothing is left.

use anyhow::{Context, Result};
use cri_tests::{House, house, house_of, removed, sandboxer, spinning};
use harness::process::{children_of, ended, parent_of, signal};
use harness::{Containerd, ContainerdBuilder, CriContainer, Pod, Version};
use k8s_cri::v1::{ContainerState, PodSandboxState};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};

/// A pod with a container that runs and one that was created, the supervisor and the pod's holder.
struct Running<'a> {
    pod: Pod<'a>,
    first: CriContainer<'a>,
    second: CriContainer<'a>,
    supervisor: u32,
    holder: u32,
}

async fn running<'a>(house: &'a House, image: &str) -> Result<Running<'a>> {
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let first = spinning(&pod, "first", image).await?;
    let second = spinning(&pod, "second", image).await?;
    let supervisor = parent_of(first.pid().await?)?;
    assert_eq!(
        parent_of(second.pid().await?)?,
        supervisor,
        "a pod has one supervisor"
    );
    let (holder, _) = children_of(supervisor)
        .into_iter()
        .find(|(_, arguments)| !arguments.contains("sampan-runner"))
        .context("the supervisor has the pod's holder below it")?;
    Ok(Running {
        pod,
        first,
        second,
        supervisor,
        holder,
    })
}

async fn killed(builder: ContainerdBuilder) -> Result<()> {
    let Some(house) = house_of(builder).await? else {
        return Ok(());
    };
    let image = house.pulled_guest("probe", "wasip1").await?;

    // A guest: the other one runs on, and so does the pod.
    let it = running(&house, &image).await?;
    signal(it.first.pid().await?, SIGKILL)?;
    let exit = it.first.wait().await?;
    assert_eq!(exit.exit_code, 137, "{exit:?}");
    assert_eq!(
        it.second.status().await?.state(),
        ContainerState::ContainerRunning
    );
    assert_eq!(
        house.pod_state(&it.pod).await?,
        PodSandboxState::SandboxReady
    );
    let again = spinning(&it.pod, "again", &image).await?;
    assert_eq!(
        again.status().await?.state(),
        ContainerState::ContainerRunning
    );
    removed(&it.pod).await?;
    house
        .containerd
        .assert_clean()
        .await
        .context("a guest was killed")?;

    // The holder: the kubelet learns that the pod is not ready any more.
    let it = running(&house, &image).await?;
    signal(it.holder, SIGKILL)?;
    house.not_ready(&it.pod).await?;
    removed(&it.pod).await?;
    ended(it.supervisor).await?;
    house
        .containerd
        .assert_clean()
        .await
        .context("the holder was killed")?;

    // The supervisor: all of the pod ends with it.
    let it = running(&house, &image).await?;
    let (first, second) = (it.first.pid().await?, it.second.pid().await?);
    signal(it.supervisor, SIGKILL)?;
    for pid in [first, second, it.holder] {
        ended(pid).await?;
    }
    for container in [&it.first, &it.second] {
        assert_ne!(container.wait().await?.exit_code, 0);
    }
    house.not_ready(&it.pod).await?;
    removed(&it.pod).await?;
    house
        .containerd
        .assert_clean()
        .await
        .context("the supervisor was killed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_seen_and_leaves_nothing_on_2() -> Result<()> {
    killed(Containerd::builder().version(Version::V2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_seen_and_leaves_nothing_with_the_shim_as_sandboxer() -> Result<()> {
    killed(sandboxer()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_seen_and_leaves_nothing_on_1_7() -> Result<()> {
    killed(Containerd::builder().version(Version::V1_7)).await
}

async fn containerd_killed(builder: ContainerdBuilder) -> Result<()> {
    let Some(mut house) = house_of(builder).await? else {
        return Ok(());
    };
    let image = house.pulled_guest("probe", "wasip1").await?;

    // containerd alone: the pod runs on and is its own again.
    let it = running(&house, &image).await?;
    let (pod, supervisor) = (it.pod.id().to_owned(), it.supervisor);
    let (first, second) = (it.first.id().to_owned(), it.second.id().to_owned());
    let pid = it.first.pid().await?;
    drop(it);
    house.containerd.kill9()?;
    assert_eq!(parent_of(pid)?, supervisor, "it runs on without containerd");
    house.containerd.restart().await?;
    let shown = house.containerd.crictl(&["ps", "-q"]).await?;
    assert!(shown.contains(&first) && shown.contains(&second), "{shown}");
    house
        .containerd
        .crictl(&["stop", "--timeout", "5", &first])
        .await?;
    let shown = house.containerd.crictl(&["ps", "-q"]).await?;
    assert!(
        !shown.contains(&first) && shown.contains(&second),
        "{shown}"
    );
    house.containerd.crictl(&["stopp", &pod]).await?;
    house.containerd.crictl(&["rmp", &pod]).await?;
    house
        .containerd
        .assert_clean()
        .await
        .context("containerd was killed")?;

    // With a guest, with the holder, with the supervisor: what happens while it is away is found out later.
    for who in ["guest", "holder", "supervisor"] {
        let it = running(&house, &image).await?;
        let pod = it.pod.id().to_owned();
        let pid = match who {
            "guest" => it.first.pid().await?,
            "holder" => it.holder,
            _ => it.supervisor,
        };
        drop(it);
        house.containerd.kill9()?;
        signal(pid, SIGKILL)?;
        ended(pid).await?;
        house.containerd.restart().await?;
        house
            .containerd
            .crictl(&["stopp", &pod])
            .await
            .with_context(|| who.to_owned())?;
        house
            .containerd
            .crictl(&["rmp", &pod])
            .await
            .with_context(|| who.to_owned())?;
        house
            .containerd
            .assert_clean()
            .await
            .with_context(|| who.to_owned())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_containerd_finds_its_pods_again_on_2() -> Result<()> {
    containerd_killed(Containerd::builder().version(Version::V2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_containerd_finds_its_pods_again_with_the_shim_as_sandboxer() -> Result<()> {
    containerd_killed(sandboxer()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_containerd_finds_its_pods_again_on_1_7() -> Result<()> {
    containerd_killed(Containerd::builder().version(Version::V1_7)).await
}

/// While a container of a pod compiles, its helper or its supervisor dies.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_compiling_leaves_nothing() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let probe = house.pulled_guest("probe", "wasip1").await?;
    let fresh = house.pulled_guest("hello-go", "wasip1").await?;

    let it = running(&house, &probe).await?;
    for who in ["helper", "supervisor"] {
        let container = it
            .pod
            .container(who, &fresh)
            .command(["/"])
            .create()
            .await?;
        let kill = async {
            let helper = house.containerd.compiler().await?;
            signal(helper, SIGSTOP)?;
            signal(
                if who == "helper" {
                    helper
                } else {
                    it.supervisor
                },
                SIGKILL,
            )?;
            ended(helper).await
        };
        let (started, killed) = tokio::join!(container.start(), kill);
        killed?;
        let status = started.expect_err("its program was never compiled");
        assert!(!status.message().is_empty());
        if who == "helper" {
            // Nobody else in the pod has noticed.
            assert_eq!(
                it.first.status().await?.state(),
                ContainerState::ContainerRunning
            );
        }
    }
    house.not_ready(&it.pod).await?;
    removed(&it.pod).await?;
    house.containerd.assert_clean().await
}
