//! How much a guest may use: what is enforced, and what is said of it.

use anyhow::Result;
use harness::Version;
use shim_tests::{containerd, layer};

#[tokio::test(flavor = "multi_thread")]
async fn fuel_ends_an_endless_loop() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let task = || {
        containerd
            .task(&image)
            .annotation("sampan.dev/fuel", "50000000")
    };
    let output = task().args(["/", "spin"]).run().await?;
    assert_eq!(output.status, 123, "{output:?}");
    let stderr = output.stderr();
    assert!(
        stderr
            .lines()
            .any(|line| line.starts_with("sampan: out of time") && line.contains("fuel")),
        "{stderr}"
    );
    // Enough is enough.
    let output = task().args(["/"]).run().await?;
    assert_eq!(
        (output.status, output.stdout()),
        (0, "hello from probe\n".to_owned())
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_overflow_is_a_trap_at_the_size_that_is_set() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    for size in ["64Ki", "512Ki"] {
        let task = containerd
            .task(&image)
            .annotation("sampan.dev/max-stack", size);
        let output = task.args(["/", "stack-overflow"]).run().await?;
        assert_eq!(output.status, 121, "{size}: {output:?}");
    }
    containerd.assert_clean().await
}
