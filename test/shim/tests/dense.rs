//! One supervisor for all containers of a containerd namespace: who finds it, who is served, and what its death means.
//! Whatever `SAMPAN_SCOPE` says; that such a supervisor can do what others can is shown by the other tests with that.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use harness::process::{ended, parent_of, signal};
use harness::{Containerd, Task, TaskBuilder, Version, until};
use nix::sys::signal::Signal::{SIGKILL, SIGSTOP};
use serde_json::json;
use shim_tests::{containerd, deleted, expect, layer, of_pod, refusal};
use tokio::time::timeout;
use tonic::Code;

const DENSE: &str = "io.containerd.sampan-dense.v1";
const PROGRAM: &str = "containerd-shim-sampan-dense-v1";
const DEADLINE: Duration = Duration::from_secs(20);

fn sleeper<'a>(containerd: &'a Containerd, image: &str) -> TaskBuilder<'a> {
    containerd
        .task(image)
        .runtime(DENSE)
        .args(["/", "sleep", "600000"])
}

async fn sleeping<'a>(builder: TaskBuilder<'a>) -> Result<Task<'a>> {
    let mut task = builder.create().await?;
    task.start().await?;
    task.stdout_contains("sleeping").await?;
    Ok(task)
}

async fn all_sleeping<'a>(
    containerd: &'a Containerd,
    image: &str,
    number: usize,
) -> Result<Vec<Task<'a>>> {
    try_join_all((0..number).map(async |_| sleeping(sleeper(containerd, image)).await)).await
}

async fn ended_well(mut task: Task<'_>) -> Result<()> {
    task.kill(15).await?;
    assert_eq!(task.wait().await?, 143);
    task.delete().await?;
    Ok(())
}

/// The supervisors of these tasks.
fn supervisors(tasks: &[Task<'_>]) -> Result<BTreeSet<u32>> {
    tasks.iter().map(|task| parent_of(task.pid())).collect()
}

/// containerd hands the name through by which it executes the program, found by the runtime's name or given as a path.
async fn one_serves_all(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut tasks = all_sleeping(&containerd, &image, 5).await?;
    let path = harness::built_dir()?.join(PROGRAM);
    let by_path = sleeper(&containerd, &image).runtime(&path.display().to_string());
    tasks.push(sleeping(by_path).await?);
    let together = supervisors(&tasks)?;
    assert_eq!(together.len(), 1, "{together:?}");
    for task in tasks {
        ended_well(task).await?;
    }
    for supervisor in together {
        ended(supervisor).await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_supervisor_serves_all_on_2() -> Result<()> {
    one_serves_all(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_supervisor_serves_all_on_1_7() -> Result<()> {
    one_serves_all(Version::V1_7).await
}

/// Fifty come at once where nobody is; then one after the other, so that each may meet the end of the supervisor of the one
/// before; then where one is killed, and where the socket of a killed one lies.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_finds_one_that_stays() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello.wasm").await?;
    let run = async || {
        let builder = containerd.task(&image).runtime(DENSE).args(["/"]);
        let output = builder.run().await?;
        assert_eq!(output.status, 0, "{}", output.stderr());
        anyhow::Ok(())
    };
    try_join_all((0..50).map(|_| run())).await?;
    // Without a pause, in three rows beside each other: again and again the last one goes while another comes.
    try_join_all((0..3).map(async |_| {
        for _ in 0..15 {
            run().await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    containerd.assert_clean().await?;

    let sleeper = layer(&containerd, "probe.wasm").await?;
    let mut tasks = all_sleeping(&containerd, &sleeper, 1).await?;
    let mut task = tasks.remove(0);
    let supervisor = parent_of(task.pid())?;
    let socket = socket_of(&containerd, &task)?;
    signal(supervisor, SIGKILL)?;
    // Some of these are there before containerd has noticed, some come while it cleans up.
    try_join_all((0..20).map(|_| run())).await?;
    deleted(&mut task).await?;
    containerd.assert_clean().await?;

    drop(UnixListener::bind(&socket)?);
    try_join_all((0..20).map(|_| run())).await?;
    // This waits for the end of the last supervisor, which takes its socket along.
    containerd.assert_clean().await?;
    assert!(!socket.exists());
    Ok(())
}

/// Where the supervisor of a task listens.
fn socket_of(containerd: &Containerd, task: &Task<'_>) -> Result<PathBuf> {
    let address = fs::read_to_string(containerd.bundle("default", task.id()).join("address"))?;
    Ok(PathBuf::from(address.trim_start_matches("unix://")))
}

/// What `start` asks a supervisor that it finds: to wait for a container. By hand, as ttrpc has it on the wire.
fn announcement(id: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("it is short");
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, length(bytes)], bytes].concat();
    let request = [
        field(1, b"containerd.task.v3.Task"),
        field(2, b"Connect"),
        field(3, &field(1, id.as_bytes())),
        field(5, &field(1, b"sampan.dev/announced")),
    ]
    .concat();
    [&[0, 0, 0, length(&request), 0, 0, 0, 1, 1, 0], &*request].concat()
}

/// Whoever has connected to a supervisor before its last container went, and asks it after that, is refused: it would
/// wait for somebody who cannot find it any more.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_too_late_is_told() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let task = sleeping(sleeper(&containerd, &image)).await?;
    let supervisor = parent_of(task.pid())?;
    let mut late = UnixStream::connect(socket_of(&containerd, &task)?)?;
    ended_well(task).await?;
    // It waits a second for its connections to be closed. On a slow machine it may have gone by now, which says it too.
    let mut answer = Vec::new();
    let asked = late.write_all(&announcement("late"));
    if asked.and_then(|()| late.read_to_end(&mut answer)).is_ok() && !answer.is_empty() {
        // The length of the message is not of interest; its first field is the status, whose first is the code.
        let unavailable = matches!(
            answer.as_slice(),
            [_, _, _, _, 0, 0, 0, 1, 2, _, 0x0a, _, 8, 14, ..]
        );
        assert!(unavailable, "{answer:?}");
    }
    drop(late);
    ended(supervisor).await?;
    containerd.assert_clean().await
}

/// A supervisor that says that it ends: takes its socket away, and answers with ttrpc's UNAVAILABLE.
fn ends_when_asked(socket: PathBuf) -> Result<JoinHandle<std::io::Result<()>>> {
    const UNAVAILABLE: [u8; 14] = [0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 0x0a, 2, 8, 14];
    let listener = UnixListener::bind(&socket)?;
    Ok(std::thread::spawn(move || {
        let (mut asked, _) = listener.accept()?;
        fs::remove_file(socket)?;
        let mut header = [0; 10];
        asked.read_exact(&mut header)?;
        let [a, b, c, d, ..] = header;
        let mut request = vec![0; usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0)];
        asked.read_exact(&mut request)?;
        asked.write_all(&UNAVAILABLE)
    }))
}

/// Whoever asks a supervisor that ends becomes one itself, with nothing of what it asked with.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_one_that_ends_serves_itself() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let first = sleeping(sleeper(&containerd, &image)).await?;
    let socket = socket_of(&containerd, &first)?;
    let aside = socket.with_extension("aside");
    fs::rename(&socket, &aside)?;
    let ends = ends_when_asked(socket.clone())?;
    let second = sleeping(sleeper(&containerd, &image)).await?;
    ends.join().expect("no panic")?;
    let (of_first, of_second) = (parent_of(first.pid())?, parent_of(second.pid())?);
    assert_ne!(of_first, of_second);
    let same = async || {
        let open = |pid| anyhow::Ok(descriptors(pid)?.0);
        Ok((open(of_first)? == open(of_second)?).then_some(()))
    };
    until("both to have as many descriptors", DEADLINE, same).await?;
    ended_well(second).await?;
    fs::rename(&aside, &socket)?;
    ended_well(first).await?;
    containerd.assert_clean().await
}

/// The supervisor is killed: containerd tells of every container's end, and each can be deleted.
async fn killed(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut events = containerd.events().await?;
    let mut tasks = all_sleeping(&containerd, &image, 10).await?;
    let supervisor = supervisors(&tasks)?;
    assert_eq!(supervisor.len(), 1, "{supervisor:?}");
    let supervisor = supervisor.first().copied().context("there is one")?;
    signal(supervisor, SIGKILL)?;
    for task in &tasks {
        ended(task.pid()).await?;
    }
    let ids = tasks.iter().map(Task::id);
    events.each_of(ids, "/tasks/exit", DEADLINE).await?;
    // New ones come at once, also while the old ones are cleaned up.
    let after = all_sleeping(&containerd, &image, 3).await?;
    for task in &mut tasks {
        deleted(task).await?;
    }
    drop(tasks);
    let next = supervisors(&after)?;
    assert!(next.len() == 1 && !next.contains(&supervisor), "{next:?}");
    let mut after = after.into_iter();
    ended_well(after.next().context("one of them")?).await?;
    // Nobody comes after this one, who would take its socket over.
    signal(next.first().copied().context("there is one")?, SIGKILL)?;
    for mut task in after {
        deleted(&mut task).await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_is_the_end_of_all_on_2() -> Result<()> {
    killed(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_is_the_end_of_all_on_1_7() -> Result<()> {
    killed(Version::V1_7).await
}

/// A directory with the shim under its second name, as the node program lays one out for each release.
fn release(containerd: &Containerd, name: &str) -> Result<PathBuf> {
    let dir = containerd.scratch().dir().join(name);
    fs::create_dir(&dir)?;
    let built = harness::built_dir()?;
    for file in ["containerd-shim-sampan-v1", "sampan-runner"] {
        fs::copy(built.join(file), dir.join(file))?;
    }
    symlink("containerd-shim-sampan-v1", dir.join(PROGRAM))?;
    Ok(dir.join(PROGRAM))
}

/// After an upgrade, a change of the configuration, or another file in the shim's place, new containers have another supervisor; those that are
/// there keep theirs, which ends with the last of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_serves_who_is_new() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let by = |path: &Path| sleeper(&containerd, &image).runtime(&path.display().to_string());
    let (old, new) = (release(&containerd, "old")?, release(&containerd, "new")?);
    let link = containerd.scratch().dir().join(PROGRAM);
    symlink(&old, &link)?;
    let first = sleeping(by(&link)).await?;
    let same = sleeping(by(&old)).await?;
    let of_first = parent_of(first.pid())?;
    assert_eq!(
        of_first,
        parent_of(same.pid())?,
        "a link is what it leads to"
    );

    fs::remove_file(&link)?;
    symlink(&new, &link)?;
    let upgraded = sleeping(by(&link)).await?;
    let of_upgraded = parent_of(upgraded.pid())?;
    assert_ne!(of_first, of_upgraded);
    assert_eq!(
        fs::read_link(format!("/proc/{of_upgraded}/exe"))?,
        new.with_file_name("containerd-shim-sampan-v1")
    );

    let config = containerd.scratch().dir().join("sampan.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("{text}\n[defaults]\nmax-execs = 7\n"))?;
    let configured = sleeping(by(&link)).await?;
    let of_configured = parent_of(configured.pid())?;
    assert!(![of_first, of_upgraded].contains(&of_configured));

    // Another file by the same name is another release: a repair, or a package's upgrade.
    let shim = new.with_file_name("containerd-shim-sampan-v1");
    fs::remove_file(&shim)?;
    fs::copy(
        harness::built_dir()?.join("containerd-shim-sampan-v1"),
        &shim,
    )?;
    let replaced = sleeping(by(&link)).await?;
    let of_replaced = parent_of(replaced.pid())?;
    assert!(![of_first, of_upgraded, of_configured].contains(&of_replaced));

    ended_well(first).await?;
    ended_well(same).await?;
    ended(of_first).await?;
    for task in [upgraded, configured, replaced] {
        ended_well(task).await?;
    }
    containerd.assert_clean().await
}

/// The supervisor's log goes on when the container is gone in whose bundle it began.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_outlives_the_first_container() -> Result<()> {
    let Some(mut containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let first = sleeping(sleeper(&containerd, &image)).await?;
    let second = sleeping(sleeper(&containerd, &image)).await?;
    let third = sleeping(sleeper(&containerd, &image)).await?;
    let ids = [first.id().to_owned(), second.id().to_owned()];
    ended_well(first).await?;
    ended_well(second).await?;
    told_of_deletion(&containerd, &ids).await?;
    // containerd that comes back reads what was written meanwhile.
    let (id, pid) = (third.id().to_owned(), third.pid());
    drop(third);
    containerd.stop().await?;
    signal(pid, SIGKILL)?;
    ended(pid).await?;
    containerd.restart().await?;
    until("the log of the container's exit", DEADLINE, async || {
        let told = |line: &str| line.contains("container exits") && line.contains(&id);
        Ok(containerd.log().lines().any(told).then_some(()))
    })
    .await?;
    containerd
        .ctr("default", &["tasks", "rm", "--force", &id])
        .await?;
    containerd
        .ctr("default", &["containers", "rm", &id])
        .await?;
    containerd.assert_clean().await
}

async fn told_of_deletion(containerd: &Containerd, ids: &[String]) -> Result<()> {
    until("the log of the deletions", DEADLINE, async || {
        let log = containerd.log();
        let told = |id: &String| {
            log.lines()
                .any(|line| line.contains("container deleted") && line.contains(id.as_str()))
        };
        Ok(ids.iter().all(told).then_some(()))
    })
    .await
}

/// Descriptors that a process has open, and how many it may have: soft and hard.
fn descriptors(pid: u32) -> Result<(usize, [u64; 2])> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .context("a limit on open files")?;
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().context("a number")?.context("a number");
    Ok((open, [next()?, next()?]))
}

/// The shim, as it is where a service manager has set containerd's limits.
fn limited_shim(containerd: &Containerd, limits: &str) -> Result<String> {
    let shim = containerd.scratch().dir().join("limited");
    let real = harness::built_dir()?.join(PROGRAM);
    let script = format!("#!/bin/sh\n{limits} && exec {} \"$@\"\n", real.display());
    fs::write(&shim, script)?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    Ok(shim.display().to_string())
}

/// With a spec that has no limit of its own.
fn unbounded(builder: TaskBuilder<'_>) -> TaskBuilder<'_> {
    builder.spec(|spec| spec["process"]["rlimits"] = json!([]))
}

/// A container costs no more descriptors than the supervisor reckons with, gives them back, and its guest has not the
/// supervisor's limit.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_are_counted() -> Result<()> {
    const COST: usize = 12;
    const OF_HOLDER: usize = 4;
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let shim = limited_shim(&containerd, "ulimit -Sn 300 && ulimit -Hn 4000")?;
    let builder = || unbounded(sleeper(&containerd, &image).runtime(&shim));
    let mut events = containerd.events().await?;
    let first = sleeping(builder()).await?;
    let supervisor = parent_of(first.pid())?;
    // The connection that they go by is the supervisor's from then on.
    events
        .each_of([first.id()], "/tasks/start", DEADLINE)
        .await?;
    let (before, limits) = descriptors(supervisor)?;
    assert_eq!(limits, [4000, 4000], "the supervisor's is raised");
    let of_guest = descriptors(first.pid())?.1;
    assert_eq!(of_guest, [300, 4000], "the guest's is not");
    let tasks = try_join_all((0..8).map(async |_| sleeping(builder()).await)).await?;
    let (with, _) = descriptors(supervisor)?;
    assert!(with <= before + 8 * COST, "{before}, then {with}");
    let holders = try_join_all((0..8).map(async |_| {
        let pod = format!("pod{}", harness::unique());
        let builder = unbounded(containerd.task(&image).runtime(&shim));
        let mut holder = of_pod(builder, &pod).create().await?;
        holder.start().await?;
        anyhow::Ok(holder)
    }))
    .await?;
    let (too, _) = descriptors(supervisor)?;
    assert!(too <= with + 8 * OF_HOLDER, "{with}, then {too}");
    for mut holder in holders {
        holder.kill(9).await?;
        holder.wait().await?;
        holder.delete().await?;
    }
    for task in tasks {
        ended_well(task).await?;
    }
    until("the descriptors to be as before", DEADLINE, async || {
        Ok((descriptors(supervisor)?.0 <= before).then_some(()))
    })
    .await?;
    ended_well(first).await?;
    containerd.assert_clean().await
}

/// With few descriptors, as many containers as can be served are, and who comes then is told what to change.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_room_is_told() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let shim = limited_shim(&containerd, "ulimit -n 512")?;
    let limited = || unbounded(sleeper(&containerd, &image).runtime(&shim));
    // 512, less a quarter, by twelve.
    let mut tasks = try_join_all((0..32).map(async |_| sleeping(limited()).await)).await?;
    let supervisor = supervisors(&tasks)?;
    assert_eq!(supervisor.len(), 1, "{supervisor:?}");
    for _ in 0..3 {
        let refused = limited().create().await;
        let status = refusal(refused.map(drop))?;
        let named = ["32 containers", "512 open files", "LimitNOFILE"];
        expect(&status, Code::Unknown, &named);
    }
    // Nobody who is there has suffered, and a place that is free is free.
    ended_well(tasks.pop().context("one of them")?).await?;
    tasks.push(sleeping(limited()).await?);
    // With a higher limit there is another supervisor.
    tasks.push(sleeping(sleeper(&containerd, &image)).await?);
    assert_eq!(supervisors(&tasks)?.len(), 2);
    for task in tasks {
        ended_well(task).await?;
    }
    containerd.assert_clean().await
}

/// The supervisor's own cgroup allows no further process: who comes is told so, and nobody who is there suffers.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
async fn who_gets_no_process_is_told() -> Result<()> {
    let pids = Path::new("/sys/fs/cgroup/pids");
    if !pids.exists() {
        eprintln!("skipped: with version 2 a process is born in the container's cgroup");
        return Ok(());
    }
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let first = sleeping(sleeper(&containerd, &image)).await?;
    let supervisor = parent_of(first.pid())?;
    // Its name has the tag of this test, so it goes with it, whatever happens.
    let name = format!("sampan-{}-own", containerd.scratch().tag());
    let (own, home) = (pids.join(name), pids.join("cgroup.procs"));
    fs::create_dir(&own)?;
    fs::write(own.join("pids.max"), "0")?;
    fs::write(own.join("cgroup.procs"), supervisor.to_string())?;
    let refused = sleeper(&containerd, &image).create().await;
    let status = refusal(refused.map(drop))?;
    expect(&status, Code::ResourceExhausted, &["pids.max", "TasksMax"]);
    fs::write(own.join("pids.max"), "max")?;
    let second = sleeping(sleeper(&containerd, &image)).await?;
    fs::write(home, supervisor.to_string())?;
    for task in [first, second] {
        ended_well(task).await?;
    }
    fs::remove_dir(&own)?;
    containerd.assert_clean().await
}

/// Nobody waits for a container whose program does not stand in its jail yet.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_slow_holds_nobody_up() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let large = layer(&containerd, "hello-go.wasm").await?;
    let first = sleeping(sleeper(&containerd, &image)).await?;
    let slow = containerd.task(&large).runtime(DENSE).args(["/"]).run();
    let others = async {
        let helper = containerd.compiler().await?;
        signal(helper, SIGSTOP)?;
        let others = timeout(DEADLINE, all_sleeping(&containerd, &image, 5)).await;
        signal(helper, nix::sys::signal::Signal::SIGCONT)?;
        for task in others.context("the others wait for the one that is slow")?? {
            ended_well(task).await?;
        }
        anyhow::Ok(())
    };
    let (output, others) = tokio::join!(slow, others);
    others?;
    assert_eq!(output?.status, 0);
    ended_well(first).await?;
    containerd.assert_clean().await
}
