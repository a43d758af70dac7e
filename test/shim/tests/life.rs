//! Pause, resume, update, and kills for want of memory: on our guests, and the same on native containers of runc's shim
//! and ours.

use std::time::Duration;

use anyhow::{Context, Result};
use containerd_client::services::v1::{PauseTaskRequest, ResumeTaskRequest, UpdateTaskRequest};
use containerd_client::types::v1::Status as Phase;
use harness::{Containerd, RUNC, Stdio, Task, TaskBuilder, Version, image, runtime, until};
use prost_types::Any;
use serde_json::{Value, json};
use shim_tests::{containerd, expect, layer};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(20);
const BUSYBOX: &str = "example.test/busybox:v1";

/// A containerd with what is run in these tests: a wasm guest, and a native program under both shims.
struct House {
    containerd: Containerd,
    probe: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Guest,
    Native,
    Runc,
}

const KINDS: [Kind; 3] = [Kind::Guest, Kind::Native, Kind::Runc];

impl House {
    async fn new(version: Version) -> Result<Option<Self>> {
        let Some(containerd) = containerd(version).await? else {
            return Ok(None);
        };
        containerd.import(BUSYBOX, &image::busybox()?).await?;
        let probe = layer(&containerd, "probe.wasm").await?;
        Ok(Some(Self { containerd, probe }))
    }

    /// A task that uses a processor, and says so first.
    async fn spinning(&self, kind: Kind) -> Result<Task<'_>> {
        let builder = match kind {
            Kind::Guest => self.containerd.task(&self.probe).args(["/", "spin"]),
            _ => self.native(kind, "echo spinning; while :; do :; done"),
        };
        let mut task = builder.create().await?;
        task.start().await?;
        task.stdout_contains("spinning").await?;
        Ok(task)
    }

    /// A guest that asks for as many MiB as it reads.
    fn growing(&self) -> TaskBuilder<'_> {
        self.containerd
            .task(&self.probe)
            .args(["/", "grow-lines"])
            .stdin(Stdio::Fifo)
    }

    fn native(&self, kind: Kind, script: &str) -> TaskBuilder<'_> {
        let runtime = if kind == Kind::Runc { RUNC } else { runtime() };
        self.containerd
            .task(BUSYBOX)
            .runtime(runtime)
            .args(["sh", "-c", script])
    }
}

fn of_64_mib(spec: &mut Value) {
    spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
}

async fn end(mut task: Task<'_>) -> Result<()> {
    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    task.delete().await?;
    Ok(())
}

/// It ends by itself then.
async fn end_of_input(mut task: Task<'_>) -> Result<()> {
    task.close_stdin().await?;
    assert_eq!(task.wait().await?, 0);
    task.delete().await?;
    Ok(())
}

async fn pause(task: &Task<'_>) -> Result<(), Status> {
    let request = task.request(PauseTaskRequest {
        container_id: task.id().to_owned(),
    });
    task.service().pause(request).await.map(drop)
}

async fn resume(task: &Task<'_>) -> Result<(), Status> {
    let request = task.request(ResumeTaskRequest {
        container_id: task.id().to_owned(),
    });
    task.service().resume(request).await.map(drop)
}

async fn update(task: &Task<'_>, resources: &Value) -> Result<(), Status> {
    let request = task.request(UpdateTaskRequest {
        container_id: task.id().to_owned(),
        resources: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_string().into_bytes(),
        }),
        annotations: std::collections::HashMap::default(),
    });
    task.service().update(request).await.map(drop)
}

/// Processor time that a process has used, in clock ticks (proc(5), `/proc/PID/stat`, fields 14 and 15).
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .context("a name")?
        .1
        .split_whitespace()
        .collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

async fn pausing(version: Version) -> Result<()> {
    let Some(house) = House::new(version).await? else {
        return Ok(());
    };
    let mut events = house.containerd.events().await?;
    for kind in KINDS {
        let mut paused = house.spinning(kind).await?;
        let clock = house.spinning(Kind::Guest).await?;

        pause(&paused).await?;
        assert_eq!(paused.state().await?.status(), Phase::Paused, "{kind:?}");
        let (stood, began) = (ticks(paused.pid())?, ticks(clock.pid())?);
        until(
            "another task to use a tenth of a second",
            DEADLINE,
            async || Ok((ticks(clock.pid())? >= began + 10).then_some(())),
        )
        .await?;
        assert_eq!(ticks(paused.pid())?, stood, "{kind:?}: it runs on");

        resume(&paused).await?;
        assert_eq!(paused.state().await?.status(), Phase::Running, "{kind:?}");
        until("it to run again", DEADLINE, async || {
            Ok((ticks(paused.pid())? > stood).then_some(()))
        })
        .await?;

        // And one that is killed while it stands still.
        pause(&paused).await?;
        let id = paused.id().to_owned();
        paused.kill(9).await?;
        if kind == Kind::Runc {
            // runc leaves it frozen on cgroup v1.
            let _ = resume(&paused).await;
        }
        assert_eq!(paused.wait().await?, 137, "{kind:?}");
        paused.delete().await?;
        end(clock).await?;
        let topics = events.topics_until(&id, "/tasks/exit", DEADLINE).await?;
        assert_eq!(
            topics[..topics.len() - 1]
                .iter()
                .filter(|topic| topic.starts_with("/tasks/paused"))
                .count(),
            2,
            "{kind:?}: {topics:?}"
        );
        assert!(
            topics.contains(&"/tasks/resumed".to_owned()),
            "{kind:?}: {topics:?}"
        );
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_stands_still_on_2() -> Result<()> {
    pausing(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_stands_still_on_1_7() -> Result<()> {
    pausing(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_is_refused_where_it_means_nothing() -> Result<()> {
    let Some(house) = House::new(Version::V2).await? else {
        return Ok(());
    };
    let task = house
        .containerd
        .task(&house.probe)
        .args(["/", "spin"])
        .create()
        .await?;
    let status = pause(&task).await.expect_err("it was not started");
    expect(
        &status,
        Code::FailedPrecondition,
        &[task.id(), "not running"],
    );
    end(task).await?;

    let task = house.spinning(Kind::Guest).await?;
    let status = resume(&task).await.expect_err("it runs");
    expect(
        &status,
        Code::FailedPrecondition,
        &[task.id(), "not paused"],
    );
    pause(&task).await?;
    let status = pause(&task).await.expect_err("it stands still");
    expect(&status, Code::FailedPrecondition, &[task.id(), "already"]);
    end(task).await?;
    house.containerd.assert_clean().await
}

/// A file of the task's cgroup: version 1 has a directory for each controller, version 2 one for all.
fn of_cgroup(task: &Task<'_>, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/cgroup", task.pid()))?;
    let lines = || {
        table
            .lines()
            .filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok())
    };
    let found =
        lines().find(|[_, names, _]: &[&str; 3]| names.split(',').any(|name| name == controller));
    let file = match found {
        Some([_, _, path]) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
        None => {
            let [_, _, path] = lines()
                .find(|[number, ..]: &[&str; 3]| *number == "0")
                .context("a cgroup")?;
            format!("/sys/fs/cgroup{path}/{v2}")
        }
    };
    Ok(std::fs::read_to_string(&file)
        .with_context(|| file.clone())?
        .trim()
        .to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_it_runs() -> Result<()> {
    let Some(house) = House::new(Version::V2).await? else {
        return Ok(());
    };
    for kind in KINDS {
        let task = house.spinning(kind).await?;
        update(
            &task,
            &json!({ "memory": { "limit": 96 << 20 }, "cpu": { "quota": 50_000, "period": 100_000 }, "pids": { "limit": 77 } }),
        )
        .await?;
        let memory = of_cgroup(&task, "memory", "memory.limit_in_bytes", "memory.max")?;
        let cpu = of_cgroup(&task, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
        let pids = of_cgroup(&task, "pids", "pids.max", "pids.max")?;
        assert_eq!(
            (memory, cpu.split(' ').next(), pids.as_str()),
            ((96 << 20).to_string(), Some("50000"), "77"),
            "{kind:?}"
        );
        end(task).await?;
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_own_limit_follows() -> Result<()> {
    let Some(house) = House::new(Version::V2).await? else {
        return Ok(());
    };
    let mut task = house.growing().spec(of_64_mib).create().await?;
    task.start().await?;
    task.stdout_contains("at ").await?;

    task.write_stdin(b"100\n").await?;
    task.stdout_contains("refused 100 MiB").await?;
    update(&task, &json!({ "memory": { "limit": 256 << 20 } })).await?;
    task.write_stdin(b"101\n").await?;
    task.stdout_contains("got 101 MiB").await?;
    // Lower again, above what it holds: it keeps that, and gets no more.
    update(&task, &json!({ "memory": { "limit": 128 << 20 } })).await?;
    task.write_stdin(b"60\n").await?;
    task.stdout_contains("refused 60 MiB").await?;
    end_of_input(task).await?;
    house.containerd.assert_clean().await
}

/// It changes what the program may have, and does not start it.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_may_change_before_the_start() -> Result<()> {
    let Some(house) = House::new(Version::V2).await? else {
        return Ok(());
    };
    let mut task = house.growing().spec(of_64_mib).create().await?;
    update(&task, &json!({ "memory": { "limit": 256 << 20 } })).await?;
    assert_eq!(task.state().await?.status(), Phase::Created);
    task.start().await?;
    task.write_stdin(b"100\n").await?;
    task.stdout_contains("got 100 MiB").await?;
    task.write_stdin(b"300\n").await?;
    task.stdout_contains("refused 300 MiB").await?;
    end_of_input(task).await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_shrink_says_so() -> Result<()> {
    let Some(house) = House::new(Version::V2).await? else {
        return Ok(());
    };
    let mut task = house.growing().create().await?;
    task.start().await?;
    task.write_stdin(b"96\n").await?;
    task.stdout_contains("got 96 MiB").await?;
    let status = update(&task, &json!({ "memory": { "limit": 32 << 20 } }))
        .await
        .expect_err("it holds more");
    expect(
        &status,
        Code::FailedPrecondition,
        &["33554432", task.id(), "holds"],
    );
    let status = update(&task, &json!({ "memory": { "limit": "much" } }))
        .await
        .expect_err("no number");
    expect(&status, Code::InvalidArgument, &["memory.limit"]);
    assert_eq!(task.state().await?.status(), Phase::Running);
    end(task).await?;
    house.containerd.assert_clean().await
}

async fn killed_for_memory(version: Version) -> Result<()> {
    let Some(house) = House::new(version).await? else {
        return Ok(());
    };
    let mut events = house.containerd.events().await?;
    // runc's shim tells of it some time, also after the exit.
    for (kind, last) in [(Kind::Native, "/tasks/exit"), (Kind::Runc, "/tasks/oom")] {
        let mut task = house
            // A line without an end is kept in memory.
            .native(kind, "exec tail /dev/zero")
            .spec(|spec| {
                spec["linux"]["resources"]["memory"] =
                    json!({ "limit": 20 << 20, "swap": 20 << 20 })
            })
            .create()
            .await?;
        task.start().await?;
        assert_eq!(task.wait().await?, 137, "{kind:?}");
        let topics = events.topics_until(task.id(), last, DEADLINE).await?;
        assert!(
            topics.contains(&"/tasks/oom".to_owned()),
            "{kind:?}: {topics:?}"
        );
        task.delete().await?;
    }
    // A process that is not the first one.
    let mut task = house
        .native(Kind::Native, "tail /dev/zero; echo it was $?; read line")
        .stdin(Stdio::Fifo)
        .spec(|spec| {
            spec["linux"]["resources"]["memory"] = json!({ "limit": 20 << 20, "swap": 20 << 20 })
        })
        .create()
        .await?;
    task.start().await?;
    let topics = events
        .topics_until(task.id(), "/tasks/oom", DEADLINE)
        .await?;
    assert!(!topics.contains(&"/tasks/exit".to_owned()), "{topics:?}");
    task.stdout_contains("it was 137").await?;
    end(task).await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_for_memory_is_told_before_the_exit_on_2() -> Result<()> {
    killed_for_memory(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_for_memory_is_told_before_the_exit_on_1_7() -> Result<()> {
    killed_for_memory(Version::V1_7).await
}
