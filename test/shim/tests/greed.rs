//! Guests that take all they can get: each is bounded, told why, and its neighbour does not notice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use harness::process::parent_of;
use harness::{Containerd, Exec, Stdio, Task, Version, until};
use serde_json::json;
use shim_tests::{containerd, layer, rootfs};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(20);
const FLOODED: Duration = Duration::from_secs(100);

/// A container that lives beside the greedy one, in a cgroup below the same parent.
struct Neighbour<'a> {
    task: Task<'a>,
    began: Instant,
}

impl<'a> Neighbour<'a> {
    async fn new(containerd: &'a Containerd, image: &str) -> Result<Self> {
        let builder = containerd.task(image).args(["/", "tick", "10"]);
        let mut task = builder.create().await?;
        task.start().await?;
        let began = Instant::now();
        task.stdout_contains("tick 1\n").await?;
        Ok(Self { task, began })
    }

    /// It still ticks, and ends as it is told to.
    async fn ends_well(mut self) -> Result<()> {
        // More than it can have ticked until now.
        let next = self.began.elapsed().as_millis() / 10 + 1;
        self.task.stdout_contains(&format!("tick {next}\n")).await?;
        self.task.kill(15).await?;
        assert_eq!(self.task.wait().await?, 143);
        self.task.delete().await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_the_memory_is_refused_and_nobody_is_killed() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let mut events = containerd.events().await?;
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let beside = Neighbour::new(&containerd, &image).await?;
        let limit = json!({ "limit": 64 << 20, "swap": 64 << 20 });
        let mut task = containerd
            .task(&image)
            .args(["/", "oom", "134217728"])
            .spec(|spec| spec["linux"]["resources"]["memory"] = limit)
            .create()
            .await?;
        task.start().await?;
        let status = task.wait().await?;
        let topics = events
            .topics_until(task.id(), "/tasks/exit", DEADLINE)
            .await?;
        assert!(
            !topics.contains(&"/tasks/oom".to_owned()),
            "{guest}: {topics:?}"
        );
        task.delete().await?;
        // The guest sees it and says so, as its language does.
        let text = task.output(status).await.stdout();
        assert!(
            status == 0 && text.starts_with("refused at "),
            "{guest}: {status}: {text}"
        );
        beside.ends_well().await?;
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn open_files_are_counted() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = rootfs(&containerd, "probe.wasm").await?;
    let beside = layer(&containerd, "probe.wasm").await?;
    let beside = Neighbour::new(&containerd, &beside).await?;
    let open = async |limit: u64| {
        let limits = json!([{ "type": "RLIMIT_NOFILE", "soft": limit, "hard": limit }]);
        let output = containerd
            .task(&image)
            .args(["/app.wasm", "open-many", "/app.wasm", "10000"])
            .spec(move |spec| spec["process"]["rlimits"] = limits)
            .run()
            .await?;
        anyhow::Ok((output.status, output.stdout()))
    };
    let (status, text) = open(1024).await?;
    let refused: u32 = text
        .strip_prefix("refused at ")
        // wasmtime has no word for EMFILE in preview 1 and says that it is an error of input and output.
        .and_then(|rest| rest.strip_suffix(": IO\n"))
        .with_context(|| text.clone())?
        .parse()?;
    assert!(
        status == 0 && (900..1024).contains(&refused),
        "{status}: {text}"
    );
    assert_eq!(open(20_000).await?, (0, "opened 10000\n".to_owned()));
    beside.ends_well().await?;
    containerd.assert_clean().await
}

/// The largest memory that a process ever had, in bytes (proc(5), `VmHWM`).
fn peak(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.context("VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? << 10)
}

/// Bytes that a process has written (proc(5), `/proc/PID/io`).
fn written(pid: u32) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.context("wchar")?.parse()?)
}

/// A gigabyte of log goes through nobody's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_held_nowhere() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let mut task = containerd
            .task(&image)
            .args(["/", "flood-then-wait", "1073741824"])
            .stdin(Stdio::Fifo)
            .stdout(Stdio::Uri("file:///dev/null".to_owned()))
            .create()
            .await?;
        let supervisor = parent_of(task.pid())?;
        task.start().await?;
        until("the flood to be over", FLOODED, async || {
            Ok((written(task.pid())? >= 1 << 30).then_some(()))
        })
        .await?;
        for (who, pid) in [("the supervisor", supervisor), ("the guest", task.pid())] {
            let peak = peak(pid)?;
            assert!(peak < 48 << 20, "{guest}: {who} had {peak} bytes");
        }
        task.close_stdin().await?;
        assert_eq!(task.wait().await?, 0);
        task.delete().await?;
    }
    containerd.assert_clean().await
}

/// Executes so many sleepers at once: those that sleep, and what the others were told.
async fn sleepers<'t>(task: &'t Task<'_>, number: usize) -> Result<(Vec<Exec<'t>>, Vec<Status>)> {
    let started = try_join_all((0..number).map(async |_| {
        let mut exec = task.exec(["/", "sleep", "600000"]).add().await?;
        let started = exec.start().await;
        if started.is_err() {
            // As every client does with what did not start.
            exec.delete().await.context("delete what did not start")?;
        }
        anyhow::Ok(started.map(|_| exec))
    }))
    .await?;
    let (mut asleep, mut refused) = (Vec::new(), Vec::new());
    for one in started {
        match one {
            Ok(exec) => asleep.push(exec),
            Err(status) => refused.push(status),
        }
    }
    Ok((asleep, refused))
}

async fn woken(asleep: Vec<Exec<'_>>) -> Result<()> {
    let ends = asleep.into_iter().map(async |exec| {
        exec.kill(15).await?;
        let status = exec.wait().await?;
        exec.delete().await?;
        ensure!(status == 143, "a sleeper ended with {status}");
        anyhow::Ok(())
    });
    join_all(ends).await.into_iter().collect()
}

/// Each refusal says what is exhausted, and how many there may be.
fn all_say(refused: &[Status], parts: &[&str]) {
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        for part in parts {
            assert!(status.message().contains(part), "{part}: {status}");
        }
    }
}

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Hundreds at once: so many as are allowed run, each of the others is told why it does not, and when all is over nothing
/// is different from before.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_execs_is_bounded() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let beside = Neighbour::new(&containerd, &image).await?;
    let mut events = containerd.events().await?;
    let own = Neighbour::new(&containerd, &image).await?;
    let task = &own.task;
    let supervisor = parent_of(task.pid())?;
    // What the first one costs for good, such as a connection, is not the flood's.
    assert_eq!(task.exec(["/", "exit", "3"]).run().await?.status, 3);
    events.each_of([task.id()], "/tasks/exit", DEADLINE).await?;
    let before = descriptors(supervisor)?;

    let (asleep, refused) = sleepers(task, 300).await?;
    assert_eq!((asleep.len(), refused.len()), (100, 200));
    all_say(&refused, &[task.id(), "100", "max-execs"]);
    assert_eq!(task.pids().await?.len(), 101);
    // A place that is free again is free at once.
    let mut asleep = asleep;
    let last = asleep.pop().context("one of them")?;
    woken(vec![last]).await?;
    assert_eq!(task.exec(["/", "exit", "4"]).run().await?.status, 4);
    woken(asleep).await?;

    until("all to be as before", DEADLINE, async || {
        let same = descriptors(supervisor)? <= before && task.pids().await?.len() == 1;
        Ok(same.then_some(()))
    })
    .await
    .with_context(|| {
        format!(
            "{before} descriptors before, {:?} now",
            descriptors(supervisor)
        )
    })?;
    own.ends_well().await?;
    beside.ends_well().await?;
    containerd.assert_clean().await
}

/// A pod may say that it wants more; and where many come and go, each has its own exit code.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_want_more_execs_and_each_ends_as_it_says() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let mut task = containerd
        .task(&image)
        .args(["/", "tick", "10"])
        .annotation("sampan.dev/max-execs", "300")
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("tick 1\n").await?;
    let (asleep, refused) = sleepers(&task, 200).await?;
    assert_eq!((asleep.len(), refused.len()), (200, 0));
    woken(asleep).await?;
    let all = (0..300_u32).map(async |number| {
        let code = (number % 200).to_string();
        let output = task.exec(["/", "exit", &code]).run().await?;
        anyhow::Ok((number % 200, output.status))
    });
    for (code, status) in try_join_all(all).await? {
        assert_eq!(status, code);
    }
    assert_eq!(task.pids().await?.len(), 1);
    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    task.delete().await?;
    containerd.assert_clean().await
}

/// The limit on processes of the container, or of the pod that it is in, counts for what is executed too.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_processes_bounds_execs() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let beside = Neighbour::new(&containerd, &image).await?;
    let builder = containerd.task(&image).args(["/", "tick", "10"]);
    let mut task = builder
        .spec(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 20 }))
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("tick 1\n").await?;
    let (asleep, refused) = sleepers(&task, 60).await?;
    // The container's own process counts.
    assert_eq!((asleep.len(), refused.len()), (19, 41));
    all_say(&refused, &[task.id(), "20", "pids.max"]);
    assert_eq!(task.pids().await?.len(), 20);
    woken(asleep).await?;
    assert_eq!(task.exec(["/", "exit", "5"]).run().await?.status, 5);
    task.kill(9).await?;
    assert_eq!(task.wait().await?, 137);
    task.delete().await?;
    beside.ends_well().await?;
    containerd.assert_clean().await
}
