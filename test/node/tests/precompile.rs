//! Programs of images are compiled when the images come, before a pod asks for them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::image::{self, Rootfs};
use harness::{Version, get, until};
use nix::sys::signal::Signal;
use node_tests::{Config, Machine};
use tokio::process::Child;

const DEADLINE: Duration = Duration::from_secs(60);
const PROBE: &str = "localhost/probe:test";

/// Starts the program, which is ready when this returns.
async fn started(machine: &Machine) -> Result<(Child, SocketAddr)> {
    let program = machine.node("run")?.with(["--precompile"]);
    let (running, address) = program.started().await?;
    let ready = async || Ok((get(address, "/readyz").await?.status == 200).then_some(()));
    until("readiness", DEADLINE, ready).await?;
    Ok((running, address))
}

async fn ended(mut running: Child) -> Result<()> {
    let pid = running.id().context("it runs")?;
    harness::process::signal(pid, Signal::SIGTERM)?;
    ensure!(running.wait().await?.success());
    Ok(())
}

/// Waits until the program has counted so many that were compiled ahead, and so many that could not be.
async fn counted(address: SocketAddr, compiled: u32, failed: u32) -> Result<()> {
    let what = format!("{compiled} programs to be compiled and {failed} not");
    until(&what, DEADLINE, async || {
        let metrics = get(address, "/metrics").await?.text();
        let tells = |name: &str, count: u32| {
            let line = format!("sampan_node_{name}_total {count}");
            metrics.lines().any(|told| told == line)
        };
        Ok((tells("precompiled", compiled) && tells("precompile_failures", failed)).then_some(()))
    })
    .await
}

/// Nothing but pods is left of containers.
async fn nothing_is_left(machine: &Machine) -> Result<()> {
    let containers = machine.ctr(&["containers", "list", "-q"]).await?;
    ensure!(!containers.contains("precompile"), "left: {containers}");
    Ok(())
}

async fn compiled_ahead(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let before = machine.tree()?;
    // One that is there already, and what an earlier process has left.
    machine
        .import_guest("localhost/early:test", "hello.wasm")
        .await?;
    let root = machine.dir().join("left");
    std::fs::create_dir(&root)?;
    machine
        .ctr(&[
            "containers",
            "create",
            "--label=sampan.dev/precompile=true",
            "--rootfs",
            &root.display().to_string(),
            "sampan-precompile-left",
        ])
        .await?;
    let (running, address) = started(&machine).await?;
    counted(address, 1, 0).await?;
    nothing_is_left(&machine).await?;
    // The canary's and that one.
    assert_eq!(machine.artifacts(), 2);
    machine.compiled(2).await?;

    // One that comes, under two names; a native one is none of ours.
    machine.import_guest(PROBE, "probe.wasm").await?;
    machine
        .ctr(&["images", "tag", PROBE, "localhost/other:test"])
        .await?;
    machine
        .import(
            "localhost/native:test",
            &Rootfs::new().file("app", "native").build()?,
        )
        .await?;
    counted(address, 2, 0).await?;
    assert_eq!(machine.artifacts(), 3);
    machine.compiled(3).await?;
    let (pod, container) = machine.pod("sampan", "first").await?;
    assert_eq!(machine.state(&container).await?, "CONTAINER_RUNNING");
    // The pod's program was there.
    machine.compiled(3).await?;

    // One that cannot run is told of, and is no reason to give up the node. The pod's own image has come once more.
    let wrong = image::cncf(harness::guest("unknown-import.wasm")?, "wasip1");
    machine.import("localhost/wrong:test", &wrong).await?;
    counted(address, 3, 1).await?;
    assert_eq!(get(address, "/readyz").await?.status, 200);
    nothing_is_left(&machine).await?;

    machine.remove_pod(&pod).await?;
    ended(running).await?;
    machine.node("uninstall")?.succeeds().await?;
    assert_eq!(before.difference(&machine.tree()?), "");
    Ok(())
}

#[tokio::test]
async fn a_program_is_compiled_before_its_pod_on_2() -> Result<()> {
    compiled_ahead(Version::V2).await
}

#[tokio::test]
async fn a_program_is_compiled_before_its_pod_on_1_7() -> Result<()> {
    compiled_ahead(Version::V1_7).await
}

/// Without being asked for, nothing is compiled that no pod wants.
#[tokio::test]
async fn by_default_pods_come_first() -> Result<()> {
    let Some(machine) = Machine::start(Version::V2, Config::Plain).await? else {
        return Ok(());
    };
    let (running, address) = machine.node("run")?.started().await?;
    let ready = async || Ok((get(address, "/readyz").await?.status == 200).then_some(()));
    until("readiness", DEADLINE, ready).await?;
    machine.import_guest(PROBE, "probe.wasm").await?;
    let (pod, _) = machine.pod("sampan", "first").await?;
    // The canary's and the pod's.
    machine.compiled(2).await?;
    counted(address, 0, 0).await?;
    machine.remove_pod(&pod).await?;
    ended(running).await
}
