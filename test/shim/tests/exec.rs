//! What is executed in a container that runs: which programs, with which grants, in which jail, and what each call answers
//! about it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_client::services::v1 as api;
use containerd_client::types::v1::Status as Phase;
use futures::future::try_join_all;
use harness::image::Rootfs;
use harness::{Containerd, Output, Stdio, Task, TaskBuilder, Version, guest};
use serde_json::json;
use shim_tests::{containerd, expect, layer, refusal};
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(20);

/// A container of a task that spins until it is killed.
async fn spinning<'c>(builder: TaskBuilder<'c>) -> Result<Task<'c>> {
    let mut task = builder.create().await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    Ok(task)
}

async fn end(mut task: Task<'_>) -> Result<()> {
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    Ok(())
}

async fn run(task: &Task<'_>, args: &[&str]) -> Result<Output> {
    let output = task.exec(args.iter().copied()).run().await;
    output.with_context(|| format!("execute {args:?}"))
}

/// The program itself by its name, and its other exports, each a fresh instance.
async fn own_program(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let builder = containerd.task(&image).args(["/bin/app.wasm", "spin"]);
        let task = spinning(builder.env("A", "1").env("B", "2")).await?;
        for name in ["/bin/app.wasm", "app.wasm", "app.wasm#_start"] {
            if guest == "probe-p2.wasm" && name.contains('#') {
                continue;
            }
            let output = run(&task, &[name, "args", "two words", ""]).await?;
            assert_eq!(
                (output.status, output.stdout()),
                (0, format!("{name}\nargs\ntwo words\n\n")),
                "{guest}: {}",
                output.stderr()
            );
        }
        let exec = task.exec(["app.wasm", "env"]).env("B", "3").env("C", "4");
        let text = exec.run().await?.stdout();
        for line in ["A=1", "B=3", "C=4"] {
            assert!(
                text.lines().any(|is| is == line),
                "{guest}: no {line}: {text}"
            );
        }
        assert!(!text.contains("B=2"), "{guest}: {text}");
        // The streams are its own.
        let output = run(&task, &["app.wasm", "stderr", "over here"]).await?;
        assert_eq!(
            (output.stdout(), output.stderr()),
            (String::new(), "over here\n".into())
        );
        end(task).await?;
    }
    let image = layer(&containerd, "probe.wasm").await?;
    let task = spinning(containerd.task(&image).args(["/", "spin"])).await?;
    for (args, status) in [
        (&["/", "exit", "0"][..], 0),
        (&["/", "exit", "42"], 42),
        (&["/", "exit", "255"], 255),
        (&["/", "trap"], 121),
        (&["/#_start", "exit", "3"], 3),
        (&["#_start", "exit", "4"], 4),
    ] {
        let output = run(&task, args).await?;
        assert_eq!(output.status, status, "{args:?}: {}", output.stderr());
    }
    end(task).await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_program_is_executed_on_2() -> Result<()> {
    own_program(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_program_is_executed_on_1_7() -> Result<()> {
    own_program(Version::V1_7).await
}

/// An image with several programs; its own one spins.
async fn fleet(containerd: &Containerd) -> Result<String> {
    let reference = "example.test/fleet:v1";
    let image = Rootfs::new()
        .file("/app.wasm", guest("probe.wasm")?)
        .file("/tools/exports.wasm", guest("start-and-exports.wasm")?)
        .file("/seven.wat", guest("hello.wat")?)
        .file("/bin/on-path.wasm", guest("probe-p2.wasm")?)
        .file("/serve.wasm", guest("http-p2.wasm")?)
        .file("/native", b"\x7fELF\x02\x01\x01 and so on".as_slice())
        .file("/script", b"#!/bin/sh\n".as_slice())
        .file("/forged.cwasm", b"\x7fELF".as_slice())
        .directory("/tmp", 0o777)
        .symlink("/link.wasm", "bin/on-path.wasm")
        .symlink("/out.wasm", "/../../../etc/passwd")
        .entrypoint(["/app.wasm"])
        .config("Env", json!(["PATH=/bin"]))
        .build()?;
    containerd.import(reference, &image).await?;
    Ok(reference.to_owned())
}

/// Other programs of the container's own view: files of its image and of its volumes, by path, by the working directory
/// and by PATH; and what happens to everything else.
#[tokio::test(flavor = "multi_thread")]
async fn other_programs_are_found_in_the_containers_view() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = fleet(&containerd).await?;
    let volume = containerd.scratch().dir().join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("hello.wasm"), guest("hello.wasm")?)?;
    let builder = containerd.task(&image).args(["/app.wasm", "spin"]);
    let task = spinning(builder.mount(&volume, "/volume", ["ro"])).await?;

    for (args, cwd, says) in [
        (&["/seven.wat"][..], "/", "hello from hello-wat"),
        (
            &["/tools/exports.wasm#say"],
            "/",
            "said by start-and-exports",
        ),
        (&["exports.wasm#say"], "/tools", "said by start-and-exports"),
        (
            &["tools/exports.wasm#say"],
            "/",
            "said by start-and-exports",
        ),
        (&["on-path.wasm"], "/", "hello from probe-p2"),
        (&["/link.wasm"], "/", "hello from probe-p2"),
        (&["/volume/hello.wasm"], "/", "hello from hello"),
        (&["hello.wasm"], "/volume", "hello from hello"),
        (&["/app.wasm"], "/", "hello from probe"),
    ] {
        let output = task.exec(args.iter().copied()).cwd(cwd).run().await;
        let output = output.with_context(|| format!("execute {args:?} in {cwd}"))?;
        assert_eq!(output.status, 0, "{args:?}: {}", output.stderr());
        assert!(
            output.stdout().contains(says),
            "{args:?}: {}",
            output.stdout()
        );
    }
    for (args, code, names) in [
        (
            &["sh", "-c", "true"][..],
            Code::NotFound,
            &[
                "`sh`",
                "`/app.wasm`",
                "#EXPORT",
                "`/serve.wasm`",
                "`/seven.wat`",
            ][..],
        ),
        (
            &["/nothing.wasm"],
            Code::NotFound,
            &["/nothing.wasm", "`/app.wasm`"],
        ),
        (&["#nothing"], Code::NotFound, &["`nothing`", "`_start`"]),
        (
            &["/tools/exports.wasm#no"],
            Code::NotFound,
            &["`no`", "`say`"],
        ),
        (
            &["/native"],
            Code::InvalidArgument,
            &["/native", "native", "`/app.wasm`"],
        ),
        (&["/script"], Code::InvalidArgument, &["/script", "native"]),
        (
            &["/forged.cwasm"],
            Code::InvalidArgument,
            &["/forged.cwasm"],
        ),
        (&["/out.wasm"], Code::NotFound, &["/out.wasm"]),
        (&["/tools"], Code::InvalidArgument, &["/tools", "directory"]),
        (
            &["/serve.wasm"],
            Code::FailedPrecondition,
            &["/serve.wasm", "serves HTTP"],
        ),
        (&["/"], Code::InvalidArgument, &["`/`"]),
    ] {
        let output = task.exec(args.iter().copied()).run().await;
        let status = refusal(output).with_context(|| format!("execute {args:?}"))?;
        expect(&status, code, names);
    }
    // Nothing of all that has harmed the container, or stayed in it.
    assert_eq!(
        task.service()
            .list_pids(task.request(api::ListPidsRequest {
                container_id: task.id().to_owned()
            }))
            .await?
            .into_inner()
            .processes
            .len(),
        1
    );
    end(task).await?;
    containerd.assert_clean().await
}

/// What may be asked when, with the codes of containerd's contract; and in which order it hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn phases_codes_and_events() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut events = containerd.events().await?;
    let task = spinning(containerd.task(&image).args(["/", "spin"])).await?;

    let mut exec = task.exec(["/", "sleep", "600000"]).id("one").add().await?;
    assert_eq!(exec.state().await?.status(), Phase::Created);
    let status = exec.kill(9).await.expect_err("there is no process yet");
    expect(&status, Code::FailedPrecondition, &["one", "not started"]);
    expect(
        &exec.again().await.expect_err("it exists"),
        Code::AlreadyExists,
        &["one"],
    );
    let pid = exec.start().await?;
    exec.stdout_contains("sleeping").await?;
    let state = exec.state().await?;
    assert_eq!((state.status(), state.pid), (Phase::Running, pid));
    expect(
        &exec.start().await.expect_err("it runs"),
        Code::FailedPrecondition,
        &["one", "started already"],
    );
    expect(
        &exec.delete().await.expect_err("it runs"),
        Code::FailedPrecondition,
        &["one", "running"],
    );
    // Which of the container's processes it is.
    let request = task.request(api::ListPidsRequest {
        container_id: task.id().to_owned(),
    });
    let processes = task
        .service()
        .list_pids(request)
        .await?
        .into_inner()
        .processes;
    for process in &processes {
        let told = process.info.as_ref().map(|info| info.value.clone());
        // Field 1 of runc's ProcessDetails is the id.
        let expected = (process.pid == pid).then(|| b"\x0a\x03one".to_vec());
        assert_eq!(told, expected, "{process:?}");
    }
    assert_eq!(processes.len(), 2);
    exec.kill(15).await?;
    assert_eq!(exec.wait().await?, 143);
    assert_eq!(exec.state().await?.exit_status, 143);
    expect(
        &exec.kill(9).await.expect_err("it has ended"),
        Code::NotFound,
        &["one", "finished"],
    );
    assert_eq!(exec.delete().await?, 143);
    expect(
        &exec.state().await.expect_err("it is gone"),
        Code::NotFound,
        &["one"],
    );
    // The id is free again, and one that was never started can be deleted.
    exec.again().await?;
    exec.delete().await?;
    let status = refusal(task.exec([""]).add().await)?;
    expect(&status, Code::InvalidArgument, &["process.args"]);

    // One that could not be started has ended: who waits is told.
    let mut wrong = task.exec(["/nowhere.wasm"]).add().await?;
    let status = wrong.start().await.expect_err("there is no such file");
    expect(&status, Code::NotFound, &["/nowhere.wasm"]);
    assert_eq!(wrong.wait().await?, 255);
    wrong.delete().await?;

    let mut seen = Vec::new();
    let id = task.id().to_owned();
    while seen
        .iter()
        .filter(|topic| *topic == "/tasks/exec-added")
        .count()
        < 3
    {
        seen.push(events.next_of(&id, DEADLINE).await?.topic);
    }
    let of_one = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
    ];
    assert_eq!(seen[..5], of_one, "{seen:?}");

    // The end of the container ends what was executed in it, each with an exit of its own.
    let mut running = Vec::new();
    for _ in 0..3 {
        let mut exec = task.exec(["/", "spin"]).add().await?;
        exec.start().await?;
        exec.stdout_contains("spinning").await?;
        running.push(exec);
    }
    let never = task.exec(["/", "spin"]).add().await?;
    task.service()
        .kill(task.request(api::KillRequest {
            container_id: id.clone(),
            signal: 9,
            ..Default::default()
        }))
        .await?;
    for exec in &running {
        assert_eq!(exec.wait().await?, 137);
    }
    never.wait().await?;
    let mut exits = 0;
    while exits < 4 {
        let topic = events.next_of(&id, DEADLINE).await?.topic;
        exits += u32::from(topic == "/tasks/exit");
    }
    let status = refusal(task.exec(["/"]).add().await)?;
    expect(&status, Code::FailedPrecondition, &["stopped"]);
    for exec in &running {
        assert_eq!(exec.delete().await?, 137);
    }
    drop((exec, wrong, running, never));
    let mut task = task;
    assert_eq!(task.wait().await?, 137);
    // With one that was not deleted.
    task.delete().await?;
    containerd.assert_clean().await
}

/// Not before the container's own program was started, and not while it stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_does_not_run_executes_nothing() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut task = containerd.task(&image).args(["/", "spin"]).create().await?;
    let status = refusal(task.exec(["/"]).run().await)?;
    expect(&status, Code::FailedPrecondition, &["not started"]);
    task.start().await?;
    assert_eq!(task.exec(["/"]).run().await?.status, 0);
    let container_id = task.id().to_owned();
    let pause = api::PauseTaskRequest {
        container_id: container_id.clone(),
    };
    task.service().pause(task.request(pause)).await?;
    let status = refusal(task.exec(["/"]).run().await)?;
    expect(&status, Code::FailedPrecondition, &["paused"]);
    let resume = api::ResumeTaskRequest { container_id };
    task.service().resume(task.request(resume)).await?;
    assert_eq!(task.exec(["/"]).run().await?.status, 0);
    end(task).await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_reaches_what_is_executed() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let bytes: Vec<u8> = (0..500_003_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let task = spinning(containerd.task(&image).args(["/", "spin"])).await?;
        let mut exec = task
            .exec(["/", "cat-stdin"])
            .stdin(Stdio::Fifo)
            .add()
            .await?;
        exec.start().await?;
        exec.write_stdin(&bytes).await?;
        exec.close_stdin().await?;
        assert_eq!(exec.wait().await?, 0, "{guest}");
        exec.delete().await?;
        assert!(
            exec.output(0).await.stdout == bytes,
            "{guest}: the bytes have changed"
        );
        // Closed before it is there.
        let mut exec = task.exec(["/", "block"]).stdin(Stdio::Fifo).add().await?;
        exec.close_stdin().await?;
        exec.start().await?;
        assert_eq!(exec.wait().await?, 0, "{guest}");
        exec.delete().await?;
        drop(exec);
        end(task).await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let task = spinning(containerd.task(&image).args(["/", "spin"])).await?;
    let all = (0..20_u32).map(async |number| {
        let code = number.to_string();
        let output = task.exec(["/", "exit", &code]).run().await?;
        anyhow::Ok((number, output.status))
    });
    for (number, status) in try_join_all(all).await? {
        assert_eq!(status, number);
    }
    end(task).await?;
    containerd.assert_clean().await
}

fn status(pid: u32, field: &str) -> Result<String> {
    shim_tests::status(format!("/proc/{pid}"), field)
}

fn namespaces(pid: u32) -> Result<Vec<PathBuf>> {
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .iter()
        .map(|name| Ok(fs::read_link(format!("/proc/{pid}/ns/{name}"))?))
        .collect()
}

/// It stands in the same jail as the container's own program: as the kernel tells it, and as the guest notices.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_in_the_same_jail() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let (open, shut) = (
        containerd.scratch().dir().join("open"),
        containerd.scratch().dir().join("shut"),
    );
    for dir in [&open, &shut] {
        fs::create_dir(dir)?;
        std::os::unix::fs::chown(dir, Some(1234), Some(2345))?;
    }
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let builder = containerd
            .task(&image)
            .args(["/", "spin"])
            .user(1234, 2345)
            .mount(&open, "/open", ["rw"])
            .mount(&shut, "/shut", ["ro"])
            .spec(|spec| {
                spec["process"]["oomScoreAdj"] = json!(500);
                spec["process"]["user"]["additionalGids"] = json!([3456]);
                spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
                if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                    namespaces.push(json!({ "type": "cgroup" }));
                }
            });
        let task = spinning(builder).await?;
        // What the request says of user and rights counts for nothing.
        let builder = task.exec(["/", "spin"]).process(|process| {
            process["user"] = json!({ "uid": 0, "gid": 0 });
            process["noNewPrivileges"] = json!(false);
        });
        let mut exec = builder.add().await?;
        let pid = exec.start().await?;
        exec.stdout_contains("spinning").await?;

        assert_eq!(namespaces(pid)?, namespaces(task.pid())?, "{guest}");
        for field in [
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "Umask",
        ] {
            assert_eq!(
                status(pid, field)?,
                status(task.pid(), field)?,
                "{guest}: {field}"
            );
        }
        assert_eq!(status(pid, "Uid")?, "1234\t1234\t1234\t1234");
        assert_eq!(status(pid, "CapEff")?, "0000000000000000");
        assert_eq!(status(pid, "NoNewPrivs")?, "1");
        assert_eq!(
            (status(pid, "Seccomp")?, status(pid, "Seccomp_filters")?),
            ("2".into(), "2".into())
        );
        for file in ["cgroup", "limits", "oom_score_adj", "mountinfo"] {
            let of = |pid: u32| fs::read_to_string(format!("/proc/{pid}/{file}"));
            assert_eq!(of(pid)?, of(task.pid())?, "{guest}: {file}");
        }
        let links = |name: &str, pid: u32| fs::read_link(format!("/proc/{pid}/{name}"));
        assert_eq!(links("root", pid)?, links("root", task.pid())?);
        // Nothing is open but what the container's own has: the streams, and what the engine makes.
        let open_files = |pid: u32| -> Result<BTreeSet<String>> {
            let of = |entry: std::io::Result<fs::DirEntry>| -> Result<String> {
                let name = fs::read_link(entry?.path())?.display().to_string();
                Ok(name.split(':').next().unwrap_or_default().to_owned())
            };
            let names = fs::read_dir(format!("/proc/{pid}/fd"))?
                .map(of)
                .collect::<Result<BTreeSet<_>>>()?;
            Ok(names
                .into_iter()
                .filter(|name| !name.contains("/io/"))
                .collect())
        };
        assert_eq!(open_files(pid)?, open_files(task.pid())?, "{guest}");
        exec.kill(9).await?;
        exec.wait().await?;
        exec.delete().await?;

        let says = async |args: &[&str]| -> Result<String> { Ok(run(&task, args).await?.stdout()) };
        assert_eq!(says(&["/", "preopens"]).await?, "/\n/open\n/shut\n");
        assert_eq!(
            says(&["/", "write", "/open/file", "text"]).await?,
            "ok write /open/file\n"
        );
        let made = fs::metadata(open.join("file"))?;
        assert_eq!((made.uid(), made.gid()), (1234, 2345), "{guest}");
        assert_eq!(
            says(&["/", "write", "/shut/file", "text"]).await?,
            "error: write /shut/file: PERM\n"
        );
        for path in ["/proc", "/sys", "/dev/null", "/etc/passwd"] {
            assert_eq!(
                says(&["/", "stat", path]).await?,
                format!("error: stat {path}: NOENT\n")
            );
        }
        fs::remove_file(open.join("file"))?;
        drop(exec);
        end(task).await?;
    }
    containerd.assert_clean().await
}

/// An HTTP server has no command of its own, but others can be executed beside it.
#[tokio::test(flavor = "multi_thread")]
async fn beside_a_server() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let reference = "example.test/server:v1";
    let image = Rootfs::new()
        .file("/serve.wasm", guest("http-p2.wasm")?)
        .file("/probe.wasm", guest("probe-p2.wasm")?)
        .entrypoint(["/serve.wasm"])
        .build()?;
    containerd.import(reference, &image).await?;
    let mut task = containerd.task(reference).create().await?;
    task.start().await?;
    let output = run(&task, &["/probe.wasm", "exit-code", "5"]).await?;
    assert_eq!(output.status, 5, "{}", output.stderr());
    let status = refusal(task.exec(["/serve.wasm"]).run().await)?;
    expect(&status, Code::FailedPrecondition, &["serves HTTP"]);
    task.kill(15).await?;
    assert_eq!(task.wait().await?, 0);
    task.delete().await?;
    containerd.assert_clean().await
}
