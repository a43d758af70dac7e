//! `kubectl exec`, exec probes and hooks, as CRI carries them out: at once (`ExecSync`) and as a stream (`Exec`, through
//! crictl); and containers with a terminal.

use std::time::Duration;

use anyhow::Result;
use cri_tests::{At, crictl, house};
use harness::{Version, until};
use k8s_cri::v1::{ExecSyncRequest, NamespaceMode};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a probe and a hook are: a command, its exit code and its output.
async fn at_once(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let container = pod
        .container("guest", &image)
        .command(["/app.wasm", "spin"])
        .env("HARBOUR", "here")
        .create()
        .await?;
    // Nothing can be asked of what does not run.
    let status = container
        .exec(["app.wasm"])
        .await
        .expect_err("it was not started");
    assert!(status.message().contains("CONTAINER_CREATED"), "{status}");
    container.start().await?;
    container.stdout_contains("spinning").await?;

    for code in [0, 1, 42, 255] {
        let answer = container
            .exec(["app.wasm", "exit", &code.to_string()])
            .await?;
        assert_eq!(answer.exit_code, code);
    }
    let answer = container.exec(["app.wasm", "both"]).await?;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().count();
    assert_eq!((lines(&answer.stdout), lines(&answer.stderr)), (10, 10));
    let answer = container.exec(["/app.wasm", "env"]).await?;
    let text = String::from_utf8(answer.stdout)?;
    assert!(text.contains("HARBOUR=here\n"), "{text}");
    // An unknown one names what there is.
    let status = container
        .exec(["sh", "-c", "true"])
        .await
        .expect_err("there is no shell");
    for words in ["`sh`", "`/app.wasm`"] {
        assert!(status.message().contains(words), "{status}");
    }
    // A probe that takes too long is killed, and nothing of it stays.
    let request = ExecSyncRequest {
        container_id: container.id().to_owned(),
        cmd: vec!["app.wasm".into(), "sleep".into(), "600000".into()],
        timeout: 1,
    };
    let status = cri
        .runtime()
        .exec_sync(request)
        .await
        .expect_err("too slow");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let alone = async || -> Result<Option<()>> {
        let text = house
            .containerd
            .ctr("k8s.io", &["tasks", "ps", container.id()])
            .await?;
        // A heading, and the container's own.
        Ok((text.lines().count() == 2).then_some(()))
    };
    until("the end of the slow probe", DEADLINE, alone).await?;
    assert_eq!(
        container.exec(["app.wasm", "exit", "0"]).await?.exit_code,
        0
    );

    // The container's end ends what is executed in it.
    let slow = container.exec(["app.wasm", "sleep", "600000"]);
    let (slow, stopped) = tokio::join!(slow, async {
        // What is executed has its id in the list as soon as it runs; the process is there a moment before.
        let runs = async || -> Result<Option<()>> {
            let text = house
                .containerd
                .ctr("k8s.io", &["tasks", "ps", container.id()])
                .await?;
            Ok(text.contains("exec_id").then_some(()))
        };
        until("the process", DEADLINE, runs).await?;
        anyhow::Ok(container.stop(0).await?)
    });
    stopped?;
    assert_eq!(slow?.exit_code, 137);
    let status = container
        .exec(["app.wasm"])
        .await
        .expect_err("it has stopped");
    assert!(status.message().contains("CONTAINER_EXITED"), "{status}");
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_hooks_on_2() -> Result<()> {
    at_once(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_hooks_on_1_7() -> Result<()> {
    at_once(Version::V1_7).await
}

async fn streamed(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let container = pod
        .container("guest", &image)
        .command(["/app.wasm", "spin"])
        .create()
        .await?;
    container.start().await?;
    container.stdout_contains("spinning").await?;
    let says = async |flags: &str, command: &str, talk: &[(&str, &str)]| {
        let at = if flags.contains('t') {
            At::Terminal
        } else {
            At::Pipes
        };
        let command = format!("exec {flags} {} {command}", container.id());
        crictl(&house, at, &command, talk).await
    };
    assert_eq!(
        says("", "app.wasm args one", &[]).await?,
        "app.wasm\nargs\none\n"
    );
    let typed = [("", "typed\n")];
    assert_eq!(says("-i", "app.wasm cat-stdin", &typed).await?, "typed\n");
    let text = says("", "app.wasm exit 7", &[]).await?;
    assert!(
        text.contains("exit code 7") || text.contains("exit status 7"),
        "{text}"
    );
    let text = says("-it", "app.wasm tty", &[]).await?;
    assert!(
        text.contains("stdin terminal\r\nstdout terminal\r\n"),
        "{text:?}"
    );
    // The terminal of the client is raw as soon as the guest says something: what is typed is the guest's.
    let typed = [("reading", "ahoy\r"), ("got ahoy", "\x04")];
    let text = says("-it", "app.wasm lines", &typed).await?;
    assert!(text.contains("end of input"), "{text:?}");
    container.stop(0).await?;
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_terminals_on_2() -> Result<()> {
    streamed(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_terminals_on_1_7() -> Result<()> {
    streamed(Version::V1_7).await
}

/// `tty: true` in the pod: the log has what the terminal shows. And `shareProcessNamespace`: what is executed is there
/// for the pod's other containers as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_in_a_shared_pid_namespace() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").config(|config| {
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        let options = security.namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Pod.into();
    });
    let pod = pod.run().await?;
    let container = pod
        .container("guest", &image)
        .command(["/app.wasm", "tty"])
        .config(|config| config.tty = true)
        .create()
        .await?;
    container.start().await?;
    assert_eq!(container.wait().await?.exit_code, 0);
    let logs = container.logs()?;
    assert!(logs.stdout.contains("stdout terminal"), "{logs:?}");

    let container = pod
        .container("other", &image)
        .command(["/app.wasm", "spin"])
        .security(|security| {
            let options = security.namespace_options.get_or_insert_default();
            options.pid = NamespaceMode::Pod.into();
        })
        .create()
        .await?;
    container.start().await?;
    container.stdout_contains("spinning").await?;
    assert_eq!(
        container.exec(["app.wasm", "exit", "3"]).await?.exit_code,
        3
    );
    container.stop(0).await?;
    pod.remove().await?;
    house.containerd.assert_clean().await
}
