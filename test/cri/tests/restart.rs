//! containerd dies and comes back: what runs has not noticed, and what ended meanwhile is told as it was.

use std::time::Duration;

use anyhow::{Context, Result};
use cri_tests::{House, house};
use futures::future::try_join_all;
use harness::process::{ended, signal};
use harness::{Version, until};
use k8s_cri::v1::{
    ContainerState, ContainerStatus, ContainerStatusRequest, RemovePodSandboxRequest,
    StopPodSandboxRequest,
};
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1};

const DEADLINE: Duration = Duration::from_secs(30);
const PODS: usize = 4;
const CONTAINERS: usize = 5;

/// What ends in the gap, and with which exit code (128 and the number of the signal).
const GAP: [(Signal, i32); 5] = [
    (SIGTERM, 143),
    (SIGKILL, 137),
    (SIGINT, 130),
    (SIGHUP, 129),
    (SIGUSR1, 138),
];

/// A container, by what is known of it without containerd.
struct Known {
    id: String,
    pid: u32,
}

async fn ticking(house: &House, image: &str) -> Result<(Vec<String>, Vec<Known>)> {
    let cri = house.containerd.cri().await?;
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for _ in 0..PODS {
        let pod = cri.pod("sampan").run().await?;
        pods.push(pod.id().to_owned());
        let started = (0..CONTAINERS).map(async |number| {
            let container = pod
                .container(&format!("c{number}"), image)
                .command(["/", "tick", "20"])
                .create()
                .await?;
            container.start().await?;
            container.stdout_contains("tick 1").await?;
            anyhow::Ok(Known {
                id: container.id().to_owned(),
                pid: container.pid().await?,
            })
        });
        containers.extend(try_join_all(started).await?);
    }
    Ok((pods, containers))
}

async fn status(house: &House, id: &str) -> Result<ContainerStatus> {
    let request = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    let mut runtime = house.containerd.cri().await?.runtime();
    let answer = runtime.container_status(request).await?.into_inner();
    answer.status.context("the container has a status")
}

/// How many lines a container has written, by its log.
async fn lines(house: &House, id: &str) -> Result<usize> {
    Ok(house
        .containerd
        .crictl(&["logs", id])
        .await?
        .lines()
        .count())
}

async fn restarted(version: Version) -> Result<()> {
    let Some(mut house) = house(version).await? else {
        return Ok(());
    };
    let image = house.pulled_guest("probe", "wasip1").await?;
    let (pods, containers) = ticking(&house, &image).await?;
    let mut written = Vec::new();
    for container in &containers {
        written.push(lines(&house, &container.id).await?);
    }

    house.containerd.kill9()?;
    // One of each pod, and two of the first.
    let ending: Vec<usize> = (0..PODS).map(|pod| pod * CONTAINERS).chain([1]).collect();
    for (at, (with, _)) in ending.iter().zip(GAP) {
        signal(containers[*at].pid, with)?;
        ended(containers[*at].pid).await?;
    }
    house.containerd.restart().await?;

    for (at, container) in containers.iter().enumerate() {
        let gap = ending.iter().position(|ended| *ended == at);
        let expected = match gap {
            Some(_) => ContainerState::ContainerExited,
            None => ContainerState::ContainerRunning,
        };
        let status = until("CRI to know the container's state", DEADLINE, async || {
            let status = status(&house, &container.id).await?;
            Ok((status.state() == expected).then_some(status))
        })
        .await
        .with_context(|| format!("container {at}"))?;
        match gap {
            Some(gap) => assert_eq!(status.exit_code, GAP[gap].1, "container {at}: {status:?}"),
            None => {
                // Nothing was started again, and what it writes arrives.
                assert_eq!(status.finished_at, 0, "container {at}: {status:?}");
                assert!(
                    std::fs::exists(format!("/proc/{}", container.pid))?,
                    "container {at}"
                );
                until("its log to go on", DEADLINE, async || {
                    Ok((lines(&house, &container.id).await? > written[at]).then_some(()))
                })
                .await
                .with_context(|| format!("container {at}"))?;
            }
        }
    }

    let mut runtime = house.containerd.cri().await?.runtime();
    for pod in pods {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        };
        runtime.stop_pod_sandbox(request).await?;
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: pod,
        };
        runtime.remove_pod_sandbox(request).await?;
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_in_the_gap_are_told_on_2() -> Result<()> {
    restarted(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_in_the_gap_are_told_on_1_7() -> Result<()> {
    restarted(Version::V1_7).await
}
