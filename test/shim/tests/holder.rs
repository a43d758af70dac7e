//! What the process that holds a pod's namespaces costs.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use harness::{Containerd, Task, Version, proc};
use shim_tests::{containerd, layer, of_pod};

const PODS: usize = 50;
/// What one may have for itself, in kB: nothing, and a page for what we do not know of.
const MOST_PRIVATE: u64 = 4;
/// What one costs when shared pages are divided among those that share them, in kB.
const MOST_PSS: u64 = 8;
/// The tables by which the kernel finds these pages, in kB: a page for each of the levels, for the instructions, the
/// command line and what the kernel maps itself.
const MOST_TABLES: u64 = 40;

/// A pod: its holder, and a guest by which its supervisor has worked since the holder was made.
async fn pod<'a>(containerd: &'a Containerd, image: &str) -> Result<[Task<'a>; 2]> {
    let pod = format!("pod{}", harness::unique());
    let mut holder = of_pod(containerd.task(image), &pod).create().await?;
    holder.start().await?;
    let mut guest = containerd
        .task(image)
        .args(["/", "sleep", "600000"])
        .annotation("io.kubernetes.cri.container-type", "container")
        .annotation("io.kubernetes.cri.sandbox-id", &pod)
        .create()
        .await?;
    guest.start().await?;
    guest.stdout_contains("sleeping").await?;
    Ok([holder, guest])
}

/// A field of a file of `/proc/PID`, in kB.
fn kilobytes(pid: u32, file: &str, field: &str) -> Result<u64> {
    proc::field(pid, file, field).with_context(|| format!("{field} in {file} of process {pid}"))
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_holder_keeps_next_to_nothing() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let pods = try_join_all((0..PODS).map(|_| pod(&containerd, &image))).await?;
    let of_each = |file: &str, fields: &[&str]| -> Result<Vec<u64>> {
        pods.iter()
            .map(|[holder, _]| {
                fields
                    .iter()
                    .map(|field| kilobytes(holder.pid(), file, field))
                    .sum()
            })
            .collect()
    };
    let private = of_each("smaps_rollup", &["Private_Clean:", "Private_Dirty:"])?;
    let pss = of_each("smaps_rollup", &["Pss:"])?;
    let tables = of_each("status", &["VmPTE:"])?;
    for (what, values, most) in [
        ("private", private, MOST_PRIVATE),
        ("pss", pss, MOST_PSS),
        ("page tables", tables, MOST_TABLES),
    ] {
        assert!(
            median(values.clone()) <= most,
            "kB of each, {what}: {values:?}"
        );
    }
    try_join_all(pods.into_iter().flatten().map(async |mut task| {
        task.kill(9).await?;
        task.wait().await?;
        task.delete().await
    }))
    .await?;
    containerd.assert_clean().await
}
