//! Many containers at once: each gets its own, and nothing is left of any.

use anyhow::Result;
use futures::future::try_join_all;
use harness::{Task, Version};
use shim_tests::{containerd, layer};

const MANY: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_come_and_go_at_once() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "hello.wasm").await?;
    let all = (0..MANY).map(async |number| {
        let output = containerd
            .task(&image)
            .args(["/", &number.to_string()])
            .run()
            .await?;
        anyhow::Ok((number, output))
    });
    for (number, output) in try_join_all(all).await? {
        assert_eq!(output.status, 0, "{number}: {}", output.stderr());
        assert!(
            output.stdout().contains(&format!("arg 1 {number}\n")),
            "{number}: {}",
            output.stdout()
        );
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_live_at_once() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let started = (0..MANY).map(async |_| {
        let mut task = containerd
            .task(&image)
            .args(["/", "sleep", "600000"])
            .create()
            .await?;
        task.start().await?;
        task.stdout_contains("sleeping").await?;
        anyhow::Ok(task)
    });
    let mut tasks: Vec<Task<'_>> = try_join_all(started).await?;
    for task in &mut tasks {
        assert_eq!(task.pids().await?, [task.pid()]);
    }
    let ended = tasks.iter_mut().map(async |task| {
        task.kill(15).await?;
        assert_eq!(task.wait().await?, 143);
        task.delete().await
    });
    try_join_all(ended).await?;
    drop(tasks);
    containerd.assert_clean().await
}
