//! A container's life as the kubelet leads it: exit codes, stopping, restarting, counting.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cri_tests::{house, run, spinning};
use harness::process::parent_of;
use harness::{Pod, Version, until};

/// Much less than the grace period that a container is given: it ended by the signal and not by its end.
const AT_ONCE: Duration = Duration::from_secs(20);

async fn exits(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    for (args, code, reason) in [
        (&["/", "exit", "0"][..], 0, "Completed"),
        (&["/", "exit", "42"], 42, "Error"),
        (&["/", "trap"], 121, "Error"),
    ] {
        let (exit, logs) = run(&cri, &image, args).await?;
        assert_eq!(
            (exit.exit_code, exit.reason.as_str()),
            (code, reason),
            "{args:?}: {logs:?}"
        );
    }
    house.containerd.assert_clean().await
}

async fn ended(pod: &Pod<'_>, name: &str, image: &str, grace: i64) -> Result<(i32, Duration)> {
    let container = spinning(pod, name, image).await?;
    let began = Instant::now();
    container.stop(grace).await?;
    let exit = container.wait().await?;
    container.remove().await?;
    Ok((exit.exit_code, began.elapsed()))
}

/// Stopped by SIGTERM, killed, and made again in the same pod, as after a crash.
async fn stops(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let (code, took) = ended(&pod, "again", &image, 60).await?;
    assert!(code == 143 && took < AT_ONCE, "{code} after {took:?}");
    let (code, took) = ended(&pod, "again", &image, 0).await?;
    assert!(code == 137 && took < AT_ONCE, "{code} after {took:?}");
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// What CRI itself says of a container's use: the kubelet may ask it, or read the cgroups, which would hide a mistake.
async fn counts(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let mut pids = Vec::new();
    for name in ["first", "second"] {
        let container = pod
            .container(name, &image)
            .command(["/", "spin"])
            .create()
            .await?;
        container.start().await?;
        container.stdout_contains("spinning").await?;
        pids.push(container.pid().await?);
        until(
            "the container's stats",
            Duration::from_secs(20),
            async || {
                let stats = container
                    .stats()
                    .await?
                    .context("a running container has stats")?;
                let time = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
                let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
                let (Some(time), Some(memory)) = (time, memory) else {
                    return Ok(None);
                };
                assert!(
                    (100_000..100_000_000).contains(&memory.value),
                    "{} bytes",
                    memory.value
                );
                Ok((time.value > 100_000_000).then_some(()))
            },
        )
        .await?;
    }
    assert_eq!(
        parent_of(pids[0])?,
        parent_of(pids[1])?,
        "a pod has one supervisor"
    );
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_reasons_on_2() -> Result<()> {
    exits(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_reasons_on_1_7() -> Result<()> {
    exits(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_killing_on_2() -> Result<()> {
    stops(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_killing_on_1_7() -> Result<()> {
    stops(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_on_2() -> Result<()> {
    counts(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_on_1_7() -> Result<()> {
    counts(Version::V1_7).await
}
