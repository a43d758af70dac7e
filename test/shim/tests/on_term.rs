//! `sampan.dev/on-term`: an export that is run before the guest is ended.

use anyhow::Result;
use harness::{Containerd, Task, Version};
use shim_tests::{containerd, expect, layer, refusal};
use tonic::Code;

async fn waiting<'a>(containerd: &'a Containerd, on_term: &str) -> Result<Task<'a>> {
    let image = layer(containerd, "on-term.wasm").await?;
    let mut task = containerd
        .task(&image)
        .args(["/"])
        .annotation("sampan.dev/on-term", on_term)
        .create()
        .await?;
    task.start().await?;
    task.stdout_contains("on-term is waiting\n").await?;
    Ok(task)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_run_before_the_guest_ends() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let mut task = waiting(&containerd, "goodbye").await?;
    task.kill(15).await?;
    assert_eq!(task.wait().await?, 143);
    task.delete().await?;
    assert_eq!(
        task.output(143).await.stdout(),
        "on-term is waiting\non-term is told in its place\n"
    );
    // Other signals are the guest's at once.
    let mut task = waiting(&containerd, "goodbye").await?;
    task.kill(2).await?;
    assert_eq!(task.wait().await?, 130);
    task.delete().await?;
    assert_eq!(task.output(130).await.stdout(), "on-term is waiting\n");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_it() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for (signal, status) in [(15, 143), (9, 137)] {
        let mut task = waiting(&containerd, "endless").await?;
        task.kill(15).await?;
        task.stdout_contains("told in its place").await?;
        task.kill(signal).await?;
        assert_eq!(task.wait().await?, status);
        task.delete().await?;
        containerd.assert_clean().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_there_is_told_at_create() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "on-term.wasm").await?;
    let created = containerd
        .task(&image)
        .args(["/"])
        .annotation("sampan.dev/on-term", "farewell")
        .create()
        .await;
    let status = refusal(created.map(drop))?;
    expect(&status, Code::NotFound, &["farewell", "goodbye"]);
    containerd.assert_clean().await
}
