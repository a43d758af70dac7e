//! Pods that the shim makes itself (`sandboxer = "shim"`, containerd's Sandbox API): for the kubelet they are as others are.
//! What happens when parts of them are killed is in `failure.rs`.

use std::time::Duration;

use anyhow::{Context, Result};
use cri_tests::{House, house_of, sandboxer};
use harness::process::{ended, parent_of, signal};
use harness::{CriContainer, Pod, PodBuilder, image, until};
use k8s_cri::v1::{
    DnsConfig, IdMapping, NamespaceMode, PodSandboxState, PodSandboxStatus,
    PodSandboxStatusRequest, UserNamespace,
};
use nix::sys::signal::Signal::SIGKILL;

const DEADLINE: Duration = Duration::from_secs(20);

struct Images {
    probe: String,
    busybox: String,
}

async fn images(house: &House) -> Result<Images> {
    Ok(Images {
        probe: house.pulled_guest("probe", "wasip1").await?,
        busybox: house.pulled("busybox", &image::busybox()?).await?,
    })
}

async fn told(house: &House, pod: &Pod<'_>) -> Result<(PodSandboxStatus, String)> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.id().to_owned(),
        verbose: true,
    };
    let mut runtime = house.containerd.cri().await?.runtime();
    let answer = runtime.pod_sandbox_status(request).await?.into_inner();
    let info = answer.info.get("info").cloned().unwrap_or_default();
    Ok((answer.status.context("the pod has a status")?, info))
}

async fn said(pod: &Pod<'_>, name: &str, image: &str, script: &str) -> Result<String> {
    let container = pod
        .container(name, image)
        .command(["sh", "-c", script])
        .create()
        .await?;
    container.start().await?;
    let exit = container.wait().await?;
    let logs = container.logs()?;
    assert_eq!(exit.exit_code, 0, "{exit:?} {logs:?}");
    Ok(logs.stdout)
}

async fn exec(container: &CriContainer<'_>, command: &[&str]) -> Result<String> {
    let answer = container.exec(command.iter().copied()).await?;
    let stderr = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.exit_code, 0, "{command:?}: {stderr}");
    Ok(String::from_utf8(answer.stdout)?)
}

fn with_dns(pod: PodBuilder<'_>) -> PodBuilder<'_> {
    pod.config(|config| {
        "harbour".clone_into(&mut config.hostname);
        config.dns_config = Some(DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["example.test".to_owned()],
            options: Vec::new(),
        });
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_container_of_its_own_is_a_whole_pod() -> Result<()> {
    let Some(house) = house_of(sandboxer()).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let cri = house.containerd.cri().await?;
    let pod = with_dns(cri.pod("sampan")).run().await?;
    let known = house
        .containerd
        .ctr("k8s.io", &["containers", "list", "-q"])
        .await?;
    assert!(!known.contains(pod.id()), "it is a container: {known}");
    let (status, info) = told(&house, &pod).await?;
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert!(
        status.created_at > 0 && info.contains("runtimeSpec"),
        "{info}"
    );
    assert!(pod.address().await?.is_some(), "it has the pod's network");

    let guest = pod
        .container("guest", &images.probe)
        .command(["/app.wasm", "spin"])
        .create()
        .await?;
    guest.start().await?;
    guest.stdout_contains("spinning").await?;
    let resolver = "search example.test\nnameserver 192.0.2.53\n";
    for (path, content) in [
        ("/etc/resolv.conf", resolver),
        ("/etc/hostname", "harbour\n"),
    ] {
        assert_eq!(exec(&guest, &["sampan", "cat", path]).await?, content);
    }
    // Native containers beside it have the same, the pod's host name, and memory that they share.
    let script = "hostname && cat /etc/resolv.conf && echo shared > /dev/shm/file";
    let first = said(&pod, "first", &images.busybox, script).await?;
    assert_eq!(first, format!("harbour\n{resolver}"));
    let script = "cat /dev/shm/file && df -k /dev/shm | grep -c ' 65536 '";
    assert_eq!(
        said(&pod, "second", &images.busybox, script).await?,
        "shared\n1\n"
    );
    exec(&guest, &["app.wasm", "both"]).await?;

    guest.stop(10).await?;
    assert_eq!(guest.wait().await?.exit_code, 143);
    pod.stop().await?;
    assert_eq!(
        told(&house, &pod).await?.0.state(),
        PodSandboxState::SandboxNotready
    );
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// The kubelet asks again with what it has changed; nothing stays of a pod that could not be made.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_be_made_says_why_and_leaves_nothing() -> Result<()> {
    let Some(house) = house_of(sandboxer()).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let wrong = cri.pod("sampan").config(|config| {
        let linux = config.linux.get_or_insert_default();
        let name = "kernel.no_such_parameter".to_owned();
        linux.sysctls.insert(name, "1".to_owned());
    });
    let error = format!("{:#}", wrong.run().await.expect_err("no such parameter"));
    assert!(error.contains("kernel.no_such_parameter"), "{error}");
    let users = cri.pod("sampan").config(|config| {
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        let options = security.namespace_options.get_or_insert_default();
        let ids = vec![IdMapping {
            host_id: 200_000,
            container_id: 0,
            length: 65_536,
        }];
        options.userns_options = Some(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: ids.clone(),
            gids: ids,
        });
    });
    let error = format!("{:#}", users.run().await.expect_err("not implemented"));
    assert!(error.contains("hostUsers: false"), "{error}");
    house.containerd.assert_clean().await
}

/// What was mounted for a native container and for what it shares with its pod goes when their supervisor is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_no_mount() -> Result<()> {
    let Some(house) = house_of(sandboxer()).await? else {
        return Ok(());
    };
    let images = images(&house).await?;
    let pod = house.containerd.cri().await?.pod("sampan").run().await?;
    let native = pod
        .container("native", &images.busybox)
        .command(["sh", "-c", "echo up; sleep 1000"])
        .create()
        .await?;
    native.start().await?;
    native.stdout_contains("up").await?;
    let pid = native.pid().await?;
    signal(parent_of(pid)?, SIGKILL)?;
    ended(pid).await?;
    // As the kubelet does: again, until CRI has noticed all that has happened.
    until("CRI to remove the pod", DEADLINE, async || {
        Ok(pod.remove().await.ok())
    })
    .await?;
    house.containerd.assert_clean().await
}
