//! Whatever is killed, and whenever: containerd can delete the container, and nothing is left.
//!
//! `delete` works from disk alone, so each test ends a process behind the shim's back by SIGKILL and then does what a
//! client of containerd does.

use std::process::Stdio as Streams;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use containerd_client::types::v1::Status as Phase;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use harness::process::{children_of, ended, parent_of, signal};
use harness::{Containerd, Task, Version, guest, image, until};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
use shim_tests::{containerd, deleted, expect, layer, refusal};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(20);

/// How far a task has come when something is killed.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Created,
    Started,
    Running,
    Stopped,
}

const STAGES: [Stage; 4] = [
    Stage::Created,
    Stage::Started,
    Stage::Running,
    Stage::Stopped,
];

/// A task that has come so far, and its supervisor.
async fn at<'a>(
    containerd: &'a Containerd,
    image: &str,
    args: &[&str],
    says: &str,
    stage: Stage,
) -> Result<(Task<'a>, u32)> {
    let builder = containerd.task(image).args(args.iter().copied());
    let mut task = builder.create().await?;
    let supervisor = parent_of(task.pid())?;
    if !matches!(stage, Stage::Created) {
        task.start().await?;
    }
    if matches!(stage, Stage::Running | Stage::Stopped) {
        task.stdout_contains(says).await?;
    }
    if matches!(stage, Stage::Stopped) {
        task.kill(9).await?;
        task.wait().await?;
    }
    Ok((task, supervisor))
}

/// As [`deleted`] by `ctr`, where containerd was killed and comes back: another client has to do it.
async fn deleted_by_ctr(containerd: &Containerd, id: &str) -> Result<()> {
    until(
        "ctr to delete the task",
        DEADLINE,
        async || match containerd
            .ctr("default", &["tasks", "rm", "--force", id])
            .await
        {
            Ok(_) => Ok(Some(())),
            Err(error) if format!("{error:#}").contains("not found") => Ok(Some(())),
            Err(_) => Ok(None),
        },
    )
    .await?;
    containerd.ctr("default", &["containers", "rm", id]).await?;
    Ok(())
}

/// A wasm guest and a native program: image, arguments, what it says when it runs.
async fn programs(
    containerd: &Containerd,
) -> Result<[(String, &'static [&'static str], &'static str); 2]> {
    let busybox = "example.test/busybox:v1";
    containerd.import(busybox, &image::busybox()?).await?;
    Ok([
        (
            layer(containerd, "probe.wasm").await?,
            &["/", "spin"],
            "spinning",
        ),
        (
            busybox.to_owned(),
            &["sh", "-c", "echo native; sleep 1000 & exec sleep 1000"],
            "native",
        ),
    ])
}

async fn supervisor_killed(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let mut events = containerd.events().await?;
    for (image, args, says) in programs(&containerd).await? {
        for stage in STAGES {
            let (mut task, supervisor) = at(&containerd, &image, args, says, stage)
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
            let pid = task.pid();
            signal(supervisor, SIGKILL)?;
            ended(pid).await?;
            // Whoever waits for the task is told, by the events that containerd sends in the shim's place.
            let topics = events
                .topics_until(task.id(), "/tasks/delete", DEADLINE)
                .await?;
            assert!(
                topics.contains(&"/tasks/exit".to_owned()),
                "{image} {stage:?}: {topics:?}"
            );
            deleted(&mut task)
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
            containerd
                .assert_clean()
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
        }
    }
    // And the node works as before.
    let image = layer(&containerd, "hello.wasm").await?;
    assert_eq!(containerd.task(&image).args(["/"]).run().await?.status, 0);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_nothing_on_2() -> Result<()> {
    supervisor_killed(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_leaves_nothing_on_1_7() -> Result<()> {
    supervisor_killed(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_program_is_an_exit() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for (image, args, says) in programs(&containerd).await? {
        for stage in [Stage::Created, Stage::Started, Stage::Running] {
            let (mut task, supervisor) = at(&containerd, &image, args, says, stage).await?;
            signal(task.pid(), SIGKILL)?;
            assert_eq!(task.wait().await?, 137, "{image} {stage:?}");
            assert_eq!(task.state().await?.status(), Phase::Stopped);
            if matches!(stage, Stage::Created) {
                let status = task.start().await.expect_err("it has ended");
                expect(&status, Code::FailedPrecondition, &[task.id()]);
            }
            assert_eq!(task.delete().await?, 137, "{image} {stage:?}");
            ended(supervisor).await?;
            containerd
                .assert_clean()
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
        }
    }
    Ok(())
}

/// The supervisor dies under a Delete, before or after it has heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_killed_while_deleting_leaves_nothing() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for (image, args, says) in programs(&containerd).await? {
        // Stopped, it cannot answer, so the request is under way for sure.
        let (mut task, supervisor) = at(&containerd, &image, args, says, Stage::Stopped).await?;
        signal(supervisor, SIGSTOP)?;
        let mut service = task.service();
        let request = task.request(containerd_client::services::v1::DeleteTaskRequest {
            container_id: task.id().to_owned(),
        });
        let delete = tokio::spawn(async move { service.delete(request).await.map(drop) });
        signal(supervisor, SIGKILL)?;
        let _answer = delete.await?;
        deleted(&mut task).await?;
        containerd.assert_clean().await?;
    }
    Ok(())
}

/// As far as chance goes, at every step of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_killed_while_deleting_leaves_nothing_at_any_step() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for (image, args, says) in programs(&containerd).await? {
        // At every step of it, as far as chance goes.
        for round in 0..12u32 {
            let (mut task, supervisor) =
                at(&containerd, &image, args, says, Stage::Stopped).await?;
            let mut service = task.service();
            let request = task.request(containerd_client::services::v1::DeleteTaskRequest {
                container_id: task.id().to_owned(),
            });
            let delete = tokio::spawn(async move { service.delete(request).await.map(drop) });
            for _ in 0..round * 40 {
                tokio::task::yield_now().await;
            }
            signal(supervisor, SIGKILL)?;
            let _answer = delete.await?;
            deleted(&mut task)
                .await
                .with_context(|| format!("round {round}"))?;
        }
        containerd.assert_clean().await?;
    }
    Ok(())
}

async fn containerd_killed(version: Version) -> Result<()> {
    let Some(mut containerd) = containerd(version).await? else {
        return Ok(());
    };
    for (image, args, says) in programs(&containerd).await? {
        for stage in STAGES {
            let (task, supervisor) = at(&containerd, &image, args, says, stage).await?;
            let (id, pid) = (task.id().to_owned(), task.pid());
            drop(task);
            containerd.kill9()?;
            if !matches!(stage, Stage::Stopped) {
                assert_eq!(
                    parent_of(pid)?,
                    supervisor,
                    "{image} {stage:?}: it runs on without containerd"
                );
            }
            containerd.restart().await?;
            // containerd has found its task again; one that has ended it forgets (2.x and 1.7 alike, with any shim that
            // has no processes to tell of).
            let tasks = containerd.ctr("default", &["tasks", "ls"]).await?;
            let word = match stage {
                Stage::Created => "CREATED",
                Stage::Started | Stage::Running => "RUNNING",
                Stage::Stopped => "",
            };
            assert!(
                word.is_empty()
                    || tasks
                        .lines()
                        .any(|line| line.contains(&id) && line.contains(word)),
                "{image} {stage:?}: {tasks}"
            );
            deleted_by_ctr(&containerd, &id)
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
            containerd
                .assert_clean()
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
        }
        // Both at once.
        for stage in STAGES {
            let (task, supervisor) = at(&containerd, &image, args, says, stage).await?;
            let (id, pid) = (task.id().to_owned(), task.pid());
            drop(task);
            containerd.kill9()?;
            signal(supervisor, SIGKILL)?;
            ended(supervisor).await?;
            if args[0] == "/" {
                // A guest does not outlive its supervisor; a native program does until somebody calls `delete`.
                ended(pid).await?;
            }
            containerd.restart().await?;
            deleted_by_ctr(&containerd, &id)
                .await
                .with_context(|| format!("{image} {stage:?}, both"))?;
            containerd
                .assert_clean()
                .await
                .with_context(|| format!("{image} {stage:?}, both"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_containerd_finds_its_tasks_again_on_2() -> Result<()> {
    containerd_killed(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_containerd_finds_its_tasks_again_on_1_7() -> Result<()> {
    containerd_killed(Version::V1_7).await
}

/// containerd dies under a Delete: afterwards the task is there or not, and can be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_killed_while_deleting_leaves_nothing() -> Result<()> {
    let Some(mut containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    for round in 0..6u32 {
        let (task, _) = at(
            &containerd,
            &image,
            &["/", "spin"],
            "spinning",
            Stage::Stopped,
        )
        .await?;
        let id = task.id().to_owned();
        let mut service = task.service();
        let request = task.request(containerd_client::services::v1::DeleteTaskRequest {
            container_id: id.clone(),
        });
        let delete = tokio::spawn(async move { service.delete(request).await.map(drop) });
        for _ in 0..round * 60 {
            tokio::task::yield_now().await;
        }
        drop(task);
        containerd.kill9()?;
        let _answer = delete.await?;
        containerd.restart().await?;
        deleted_by_ctr(&containerd, &id)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    containerd.assert_clean().await
}

/// A program that nobody has compiled yet, large enough to be met while it compiles.
async fn fresh(containerd: &Containerd) -> Result<String> {
    let mark = harness::unique();
    let mut wasm = guest("hello-go.wasm")?;
    // A custom section of one name: other bytes, the same program.
    wasm.extend([0, u8::try_from(mark.len() + 1)?, u8::try_from(mark.len())?]);
    wasm.extend(mark.as_bytes());
    let reference = format!("example.test/fresh-{mark}:v1");
    containerd
        .import(&reference, &image::bytecode_alliance(wasm))
        .await?;
    Ok(reference)
}

/// Waits for the helper and holds it where it is.
async fn compiling(containerd: &Containerd) -> Result<u32> {
    let helper = containerd.compiler().await?;
    signal(helper, SIGSTOP)?;
    Ok(helper)
}

async fn killed_while_compiling(version: Version) -> Result<()> {
    let Some(mut containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = fresh(&containerd).await?;

    // The helper.
    let create = containerd.task(&image).args(["/"]).create();
    let kill = async {
        let helper = compiling(&containerd).await?;
        signal(helper, SIGKILL)?;
        ended(helper).await
    };
    let (created, killed) = tokio::join!(create, kill);
    killed?;
    let status = refusal(created.map(drop))?;
    let code = if version == Version::V2 {
        Code::ResourceExhausted
    } else {
        Code::Unknown
    };
    expect(&status, code, &["layer sha256:", "compil"]);
    containerd
        .assert_clean()
        .await
        .context("the helper was killed")?;

    // Its supervisor, with which the helper goes.
    let create = containerd.task(&image).args(["/"]).create();
    let kill = async {
        let helper = compiling(&containerd).await?;
        signal(parent_of(helper)?, SIGKILL)?;
        ended(helper).await
    };
    let (created, killed) = tokio::join!(create, kill);
    killed?;
    let _status = refusal(created.map(drop))?;
    containerd
        .assert_clean()
        .await
        .context("the supervisor was killed")?;

    // containerd itself, which comes back while it still compiles.
    let (id, helper, supervisor) = {
        let prepared = containerd
            .task(&image)
            .args(["/"])
            .id("compiling")
            .prepare()
            .await?;
        let create = prepared.create();
        let kill = async {
            let helper = containerd.compiler().await?;
            let supervisor = parent_of(helper)?;
            signal(supervisor, SIGSTOP)?;
            signal(helper, SIGSTOP)?;
            signal(containerd.pid().context("containerd runs")?, SIGKILL)?;
            anyhow::Ok((helper, supervisor))
        };
        let (created, killed) = tokio::join!(create, kill);
        if created.is_ok() {
            bail!("containerd was killed before it could answer");
        }
        let (helper, supervisor) = killed?;
        ("compiling", helper, supervisor)
    };
    signal(supervisor, nix::sys::signal::Signal::SIGCONT)?;
    signal(helper, nix::sys::signal::Signal::SIGCONT)?;
    containerd.restart().await?;
    deleted_by_ctr(&containerd, id).await?;
    containerd
        .ctr("default", &["snapshots", "rm", id])
        .await
        .ok();
    ended(helper).await.or_else(|error| {
        if children_of(supervisor).is_empty() {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    // A supervisor that nobody asks anything ends by itself, ten seconds later.
    let clean = async || Ok(containerd.leftovers().is_empty().then_some(()));
    if until("the idle supervisor's end", DEADLINE, clean)
        .await
        .is_err()
    {
        bail!("containerd was killed:\n{}", containerd.leftovers());
    }

    // After all that the image runs, and what was made halfway is nowhere.
    let output = containerd.task(&image).args(["/"]).run().await?;
    assert!(
        output.stdout().starts_with("hello from hello-go\n"),
        "{}",
        output.stderr()
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_compiling_leaves_nothing_on_2() -> Result<()> {
    killed_while_compiling(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_compiling_leaves_nothing_on_1_7() -> Result<()> {
    killed_while_compiling(Version::V1_7).await
}

/// `delete` as containerd calls it, and its answer.
async fn delete_by_hand(containerd: &Containerd, id: &str) -> Result<DeleteResponse> {
    let bundle = containerd.bundle("default", id);
    let output = tokio::process::Command::new(harness::built_dir()?.join(harness::shim()))
        .args(["-namespace", "default", "-id", id, "-address"])
        .arg(containerd.socket())
        .arg("-bundle")
        .arg(&bundle)
        .arg("delete")
        .current_dir(if bundle.exists() {
            bundle.as_path()
        } else {
            containerd.scratch().dir()
        })
        .env(
            "SAMPAN_CONFIG",
            containerd.scratch().dir().join("sampan.toml"),
        )
        .stdin(Streams::null())
        .output()
        .await?;
    assert!(
        output.status.success(),
        "{} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(DeleteResponse::parse_from_bytes(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_cleans_from_disk_alone_as_often_as_asked() -> Result<()> {
    let Some(mut containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for (image, args, says) in programs(&containerd).await? {
        for stage in STAGES {
            let (task, supervisor) = at(&containerd, &image, args, says, stage).await?;
            let (id, pid) = (task.id().to_owned(), task.pid());
            drop(task);
            // Nobody else cleans up then.
            containerd.kill9()?;
            signal(supervisor, SIGKILL)?;
            ended(supervisor).await?;
            let answer = delete_by_hand(&containerd, &id)
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
            assert_eq!(
                (answer.exit_status, answer.pid),
                (137, pid),
                "{image} {stage:?}"
            );
            assert!(answer.exited_at.seconds > 1_600_000_000);
            let left = containerd.leftovers();
            // The bundle is containerd's own.
            let bundle = containerd.bundle("default", &id);
            assert!(
                left.files.iter().all(|path| *path == bundle),
                "{image} {stage:?}: {left}"
            );
            assert!(
                left.processes.is_empty() && left.cgroups.is_empty(),
                "{image} {stage:?}: {left}"
            );
            // What lies elsewhere is of containerd's own mount manager (2.3).
            assert!(
                left.mounts.iter().all(|path| !path.starts_with(&bundle)),
                "{image} {stage:?}: {left}"
            );
            for _ in 0..2 {
                let answer = delete_by_hand(&containerd, &id)
                    .await
                    .with_context(|| format!("{image} {stage:?}, again"))?;
                assert_eq!(
                    (answer.exit_status, answer.pid),
                    (137, 0),
                    "{image} {stage:?}"
                );
            }
            containerd.restart().await?;
            deleted_by_ctr(&containerd, &id)
                .await
                .with_context(|| format!("{image} {stage:?}"))?;
            containerd.assert_clean().await?;
        }
    }
    Ok(())
}

/// A container is not another's business: `delete` of one leaves the others of its supervisor alone, and one of an id
/// that never was does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn delete_of_nothing_disturbs_nobody() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let (mut task, _) = at(
        &containerd,
        &image,
        &["/", "spin"],
        "spinning",
        Stage::Running,
    )
    .await?;
    let answer = delete_by_hand(&containerd, "never-was").await?;
    assert_eq!((answer.exit_status, answer.pid), (137, 0));
    assert_eq!(task.state().await?.status(), Phase::Running);
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    containerd.assert_clean().await
}
