//! A task's life: phases, signals, exit codes, events, and what each call answers in which phase.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::types::v1::Status as Phase;
use containerd_shim_protos::api::{ConnectRequest, ConnectResponse, ShutdownRequest};
use containerd_shim_protos::shim_async::TaskClient;
use containerd_shim_protos::ttrpc;
use harness::{Containerd, Stdio, Task, Version, until};
use shim_tests::{containerd, expect, layer};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(10);

/// A question to the supervisor itself, which containerd passes on to nobody.
async fn supervisor(bundle: &Path) -> Result<TaskClient> {
    let address =
        std::fs::read_to_string(bundle.join("address")).context("read the supervisor's address")?;
    Ok(TaskClient::new(
        ttrpc::r#async::Client::connect(&address).await?,
    ))
}

async fn connect(bundle: &Path, id: &str) -> Result<ConnectResponse> {
    let request = ConnectRequest {
        id: id.to_owned(),
        ..ConnectRequest::default()
    };
    Ok(supervisor(bundle)
        .await?
        .connect(ttrpc::context::with_timeout(5_000_000_000), &request)
        .await?)
}

async fn gone(pid: u32) -> Result<()> {
    until("the supervisor's end", DEADLINE, async || {
        Ok((!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()))
    })
    .await
}

async fn phase(task: &mut Task<'_>) -> Result<(Phase, u32)> {
    let process = task.state().await?;
    Ok((process.status(), process.exit_status))
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_guests_own() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let p1 = layer(&containerd, "probe.wasm").await?;
    let p2 = layer(&containerd, "probe-p2.wasm").await?;
    let p3 = layer(&containerd, "hello-p3.wasm").await?;
    for (image, args, expected) in [
        (&p1, &["/", "exit", "0"][..], 0),
        (&p1, &["/", "exit", "1"], 1),
        (&p1, &["/", "exit", "42"], 42),
        // No trap and no signal: the kernel keeps eight bits, and all of them are the guest's.
        (&p1, &["/", "exit", "126"], 126),
        (&p1, &["/", "exit", "143"], 143),
        (&p1, &["/", "exit", "255"], 255),
        (&p2, &["/", "exit", "0"], 0),
        // WASI 0.2 itself knows success and failure alone, until 0.2.12's exit-with-code.
        (&p2, &["/", "exit", "1"], 1),
        (&p2, &["/", "exit-code", "42"], 42),
        (&p3, &["/"], 0),
        (&p3, &["/", "fail"], 1),
    ] {
        let output = containerd
            .task(image)
            .args(args.iter().copied())
            .run()
            .await?;
        assert_eq!(
            output.status,
            expected,
            "{image} {args:?}: {}",
            output.stderr()
        );
    }
    let wat = layer(&containerd, "exit-7.wasm").await?;
    assert_eq!(containerd.task(&wat).args(["/"]).run().await?.status, 7);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_a_code_and_a_line() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let p1 = layer(&containerd, "probe.wasm").await?;
    let p2 = layer(&containerd, "probe-p2.wasm").await?;
    let p3 = layer(&containerd, "hello-p3.wasm").await?;
    let div0 = layer(&containerd, "div0.wasm").await?;
    let bounds = layer(&containerd, "out-of-bounds.wasm").await?;
    let start = layer(&containerd, "start-section.wasm").await?;
    for (image, args, reason) in [
        (&p1, &["/", "trap"][..], "unreachable"),
        (&p1, &["/", "panic"], "unreachable"),
        (&p1, &["/", "stack-overflow"], "stack"),
        (&p2, &["/", "trap"], "unreachable"),
        (&p3, &["/", "trap"], "unreachable"),
        (&div0, &["/"], "divide by zero"),
        (&bounds, &["/"], "out of bounds"),
        (&start, &["/"], "unreachable"),
    ] {
        let output = containerd
            .task(image)
            .args(args.iter().copied())
            .run()
            .await?;
        let stderr = output.stderr();
        assert_eq!(output.status, 121, "{image} {args:?}: {stderr}");
        let line = stderr
            .lines()
            .find(|line| line.starts_with("sampan: trap: "));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{image} {args:?}: {stderr}"
        );
    }
    containerd.assert_clean().await
}

/// SIGTERM ends a command at once with 143, SIGKILL with 137, whatever it is doing.
async fn signals(containerd: &Containerd, guest: &str) -> Result<()> {
    let image = layer(containerd, guest).await?;
    let states = [
        (&["/", "spin"][..], "spinning"),
        (&["/", "sleep", "600000"], "sleeping"),
        (&["/", "block"], "waiting for the end of input"),
    ];
    for (args, says) in states {
        for (signal, status) in [(15, 143), (9, 137), (2, 130), (1, 129)] {
            let builder = containerd.task(&image).stdin(Stdio::Fifo);
            let mut task = builder.args(args.iter().copied()).create().await?;
            task.start().await?;
            task.stdout_contains(says).await?;
            if signal == 15 {
                task.kill(signal).await?;
            } else {
                task.kill_all(signal).await?;
            }
            assert_eq!(
                task.wait().await?,
                status,
                "{guest} {args:?} signal {signal}"
            );
            assert_eq!(task.delete().await?, status);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_module() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    signals(&containerd, "probe.wasm").await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_component() -> Result<()> {
    let Some(containerd) = containerd(Version::V1_7).await? else {
        return Ok(());
    };
    signals(&containerd, "probe-p2.wasm").await?;
    containerd.assert_clean().await
}

async fn phases(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut events = containerd.events().await?;

    let builder = containerd.task(&image).stdin(Stdio::Fifo);
    let mut task = builder.args(["/", "block"]).create().await?;
    let id = task.id().to_owned();
    assert_eq!(phase(&mut task).await?, (Phase::Created, 0));
    assert!(task.pid() > 1);
    assert_eq!(task.state().await?.pid, task.pid());

    // The same id again.
    let again = api::CreateTaskRequest {
        container_id: id.clone(),
        ..api::CreateTaskRequest::default()
    };
    let status = task
        .service()
        .create(task.request(again))
        .await
        .expect_err("it exists");
    expect(&status, Code::AlreadyExists, &[]);
    // A process that does not exist.
    let exec = api::StartRequest {
        container_id: id.clone(),
        exec_id: "nobody".to_owned(),
    };
    let status = task
        .service()
        .start(task.request(exec))
        .await
        .expect_err("no such process");
    expect(&status, Code::NotFound, &["nobody"]);

    assert_eq!(task.start().await?, task.pid());
    task.stdout_contains("waiting").await?;
    assert_eq!(phase(&mut task).await?, (Phase::Running, 0));
    let status = task.start().await.expect_err("it runs");
    expect(&status, Code::FailedPrecondition, &[&id]);
    let status = task.delete_task().await.expect_err("it runs");
    expect(&status, Code::FailedPrecondition, &[&id, "running"]);
    let status = task.kill(99).await.expect_err("no such signal");
    expect(&status, Code::InvalidArgument, &["99"]);
    assert_eq!(phase(&mut task).await?, (Phase::Running, 0));

    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    assert_eq!(phase(&mut task).await?, (Phase::Stopped, 137));
    assert_eq!(task.wait().await?, 137, "a second time, at once");
    let status = task.kill(9).await.expect_err("it has ended");
    expect(&status, Code::NotFound, &[&id]);
    let status = task.start().await.expect_err("it has ended");
    expect(&status, Code::FailedPrecondition, &[&id]);
    assert_eq!(task.delete().await?, 137);
    let status = task.state().await.expect_err("it is deleted");
    expect(&status, Code::NotFound, &[&id]);
    let topics = events.topics_until(&id, "/tasks/delete", DEADLINE).await?;
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit",
            "/tasks/delete"
        ]
    );

    // Deleted without ever having been started.
    let mut task = containerd.task(&image).args(["/", "spin"]).create().await?;
    let id = task.id().to_owned();
    task.delete().await?;
    let topics = events.topics_until(&id, "/tasks/delete", DEADLINE).await?;
    assert!(!topics.contains(&"/tasks/start".to_owned()), "{topics:?}");

    // Killed before it was started.
    let mut task = containerd.task(&image).args(["/", "spin"]).create().await?;
    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    let status = task.start().await.expect_err("it has ended");
    expect(&status, Code::FailedPrecondition, &[task.id()]);
    task.delete().await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_on_2() -> Result<()> {
    phases(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_on_1_7() -> Result<()> {
    phases(Version::V1_7).await
}

/// However short a guest is, its events keep the contract's order.
#[tokio::test(flavor = "multi_thread")]
async fn events_keep_their_order() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "exit-7.wasm").await?;
    let mut events = containerd.events().await?;
    for _ in 0..20 {
        let mut task = containerd.task(&image).args(["/"]).create().await?;
        let id = task.id().to_owned();
        task.start().await?;
        assert_eq!(task.wait().await?, 7);
        task.delete().await?;
        let topics = events.topics_until(&id, "/tasks/delete", DEADLINE).await?;
        assert_eq!(
            topics,
            [
                "/tasks/create",
                "/tasks/start",
                "/tasks/exit",
                "/tasks/delete"
            ]
        );
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_built_yet_says_so() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut task = containerd.task(&image).args(["/", "spin"]).create().await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    let container_id = task.id().to_owned();
    let mut service = task.service();
    let checkpoint = api::CheckpointTaskRequest {
        container_id,
        ..api::CheckpointTaskRequest::default()
    };
    let answer = service.checkpoint(task.request(checkpoint)).await;
    let status = answer.expect_err("there are no checkpoints");
    expect(&status, Code::Unimplemented, &["Checkpoint"]);
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    containerd.assert_clean().await
}

async fn counts(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut task = containerd.task(&image).args(["/", "spin"]).create().await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    assert_eq!(
        task.pids().await?,
        [task.pid()],
        "one process is the whole container"
    );
    let metrics = task
        .metrics()
        .await?
        .context("a running task has metrics")?;
    assert!(
        metrics.type_url.starts_with("io.containerd.cgroups.v"),
        "{}",
        metrics.type_url
    );
    // It spins, so its time has to grow; ctr decodes what CRI decodes.
    until("processor time in the metrics", DEADLINE, async || {
        let text = containerd
            .ctr(
                "default",
                &["tasks", "metrics", "--format", "json", task.id()],
            )
            .await?;
        let metrics: serde_json::Value = serde_json::from_str(&text)?;
        let time = metrics["cpu"]["usage"]["total"]
            .as_u64()
            .map(|nanoseconds| nanoseconds / 1000);
        let time = time
            .or(metrics["cpu"]["usage_usec"].as_u64())
            .with_context(|| text.clone())?;
        let memory = metrics["memory"]["usage"]["usage"]
            .as_u64()
            .or(metrics["memory"]["usage"].as_u64());
        assert!(
            memory.is_some_and(|bytes| (100_000..100_000_000).contains(&bytes)),
            "{text}"
        );
        Ok((time > 50_000).then_some(()))
    })
    .await?;
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pids_and_metrics_on_2() -> Result<()> {
    counts(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pids_and_metrics_on_1_7() -> Result<()> {
    counts(Version::V1_7).await
}

/// The containers of a pod have one supervisor, which others have too if it serves the node; it ends after the last of
/// them, and not when it is asked before.
async fn one_supervisor(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let pod = format!("pod{}", harness::unique());
    let in_pod = || {
        containerd
            .task(&image)
            .args(["/", "spin"])
            .annotation("io.kubernetes.cri.sandbox-id", &pod)
    };
    let mut first = in_pod().id(&pod).create().await?;
    let mut second = in_pod().create().await?;
    let mut stranger = containerd.task(&image).args(["/", "spin"]).create().await?;
    let of_first = connect(&first.bundle(), first.id()).await?;
    let of_second = connect(&second.bundle(), second.id()).await?;
    let of_stranger = connect(&stranger.bundle(), stranger.id()).await?;
    assert_eq!(of_first.shim_pid, of_second.shim_pid);
    assert_eq!(
        of_first.shim_pid == of_stranger.shim_pid,
        harness::dense(),
        "{of_first:?} {of_stranger:?}"
    );
    assert_eq!(
        (of_first.task_pid, of_second.task_pid),
        (first.pid(), second.pid())
    );

    let shutdown = ShutdownRequest {
        id: first.id().to_owned(),
        ..ShutdownRequest::default()
    };
    supervisor(&first.bundle())
        .await?
        .shutdown(ttrpc::context::with_timeout(5_000_000_000), &shutdown)
        .await?;
    first.start().await?;
    first.stdout_contains("spinning").await?;
    first.kill(9).await?;
    first.wait().await?;
    first.delete().await?;
    second.start().await?;
    second.stdout_contains("spinning").await?;
    second.kill(9).await?;
    assert_eq!(second.wait().await?, 137);
    assert_eq!(
        connect(&second.bundle(), second.id()).await?.shim_pid,
        of_first.shim_pid
    );
    second.delete().await?;
    if !harness::dense() {
        gone(of_first.shim_pid).await?;
    }
    stranger.delete().await?;
    gone(of_stranger.shim_pid).await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_a_supervisor_on_2() -> Result<()> {
    one_supervisor(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_a_supervisor_on_1_7() -> Result<()> {
    one_supervisor(Version::V1_7).await
}

/// containerd goes and comes back: the task has run on, and its end is told to the new one. (Of a task that has ended
/// meanwhile containerd itself clears everything away when it comes back, whatever the shim.)
async fn containerd_comes_back(version: Version) -> Result<()> {
    let Some(mut containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let id = format!("c{}", harness::unique());
    let mut events = containerd.events().await?;
    let mut task = containerd
        .task(&image)
        .id(&id)
        .args(["/", "spin"])
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    // The guest may be faster than what is told of it.
    events.topics_until(&id, "/tasks/start", DEADLINE).await?;
    let pid = task.pid();
    drop(task);
    containerd.kill9()?;
    containerd.restart().await?;
    let line = async || {
        let list = containerd.ctr("default", &["tasks", "ls"]).await?;
        let line = list.lines().find(|line| line.starts_with(&id));
        anyhow::Ok(line.unwrap_or(&list).to_owned())
    };
    let running = line().await?;
    assert!(
        running.contains("RUNNING") && running.contains(&pid.to_string()),
        "{running}"
    );
    let mut events = containerd.events().await?;
    containerd
        .ctr("default", &["tasks", "kill", "--signal", "SIGKILL", &id])
        .await?;
    // The connection that events go by has ended with the old one.
    let topics = events.topics_until(&id, "/tasks/exit", DEADLINE).await?;
    // What the old one was told but did not confirm is told again, and that can only be the last.
    let (_, before) = topics.split_last().context("the exit")?;
    assert!(
        before.iter().all(|topic| topic == "/tasks/start"),
        "{topics:?}"
    );
    until("the end of the task", DEADLINE, async || {
        Ok(line().await?.contains("STOPPED").then_some(()))
    })
    .await?;
    let mut delete = tonic::Request::new(api::DeleteTaskRequest {
        container_id: id.clone(),
    });
    delete
        .metadata_mut()
        .insert("containerd-namespace", "default".parse()?);
    let deleted = TasksClient::new(containerd.channel().await?)
        .delete(delete)
        .await?;
    assert_eq!(deleted.into_inner().exit_status, 137);
    containerd
        .ctr("default", &["containers", "delete", &id])
        .await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_containerd_2() -> Result<()> {
    containerd_comes_back(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_containerd_1_7() -> Result<()> {
    containerd_comes_back(Version::V1_7).await
}
