//! Pods of one image at once: the program is compiled once per node.

use std::path::Path;

use anyhow::Result;
use cri_tests::{house, run};
use futures::future::try_join_all;
use harness::image::{self, Rootfs};
use harness::{Containerd, Version, guest};

/// So many programs the shims have compiled, by their own logs.
async fn compiled(containerd: &Containerd, times: usize) -> Result<()> {
    harness::logged(|| containerd.log(), "compiling ", times).await
}

/// The compiled programs in the store.
fn artifacts(dir: &Path) -> usize {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                artifacts(&path)
            } else {
                usize::from(path.extension().is_some_and(|it| it == "cwasm"))
            }
        })
        .sum()
}

async fn one_compilation(version: Version, pods: usize) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let containerd = &house.containerd;
    let cri = containerd.cri().await?;
    // Large enough that all of them come while the first still compiles.
    let fresh = image::cncf(guest("hello-go.wasm")?, "wasip1");
    let reference = house.registry.push("fresh:v1", &fresh).await?;
    cri.pull(&reference).await?;
    for (exit, logs) in try_join_all((0..pods).map(|_| run(&cri, &reference, &["/"]))).await? {
        assert_eq!(exit.exit_code, 0, "{exit:?} {logs:?}");
        assert!(logs.stdout.starts_with("hello from hello-go\n"), "{logs:?}");
    }
    compiled(containerd, 1).await?;
    assert_eq!(artifacts(&containerd.sampan_store()), 1);

    // The same program in another image and another format is the same program.
    let file = Rootfs::new()
        .file("/app.wasm", guest("hello-go.wasm")?)
        .entrypoint(["/app.wasm"])
        .build()?;
    let reference = house.registry.push("file:v1", &file).await?;
    cri.pull(&reference).await?;
    let (exit, logs) = run(&cri, &reference, &[]).await?;
    assert_eq!(exit.exit_code, 0, "{exit:?} {logs:?}");
    compiled(containerd, 1).await?;

    // And another is another, so the log is really counted.
    let other = image::cncf(guest("hello.wasm")?, "wasip1");
    let reference = house.registry.push("other:v1", &other).await?;
    cri.pull(&reference).await?;
    run(&cri, &reference, &["/"]).await?;
    compiled(containerd, 2).await?;
    assert_eq!(artifacts(&containerd.sampan_store()), 2);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn six_pods_of_a_fresh_image_compile_once_on_2() -> Result<()> {
    one_compilation(Version::V2, 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_of_a_fresh_image_compile_once_on_1_7() -> Result<()> {
    one_compilation(Version::V1_7, 2).await
}
