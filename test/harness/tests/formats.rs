//! What containerd itself makes of every image format, before any shim is asked: which of them its default pull takes,
//! and what CRI then calls the image.
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use anyhow::{Context, Result};
use harness::image::{self, Image, Index, Rootfs};
use harness::{Containerd, RUNC, Registry, Version};

/// The smallest module.
const WASM: &[u8] = b"\0asm\x01\0\0\0";

async fn pulls(version: Version) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: containerd needs root");
        return Ok(());
    }
    if let Err(error) = harness::Tools::locate() {
        eprintln!("skipped: {error}");
        return Ok(());
    }
    let registry = Registry::start()?;
    let containerd = Containerd::builder()
        .version(version)
        .registry(&registry)
        .start()
        .await?;
    let cri = containerd.cri().await?;
    let wasm = || WASM.to_vec();
    let files = || {
        Rootfs::new()
            .file("/app.wasm", WASM)
            .entrypoint(["/app.wasm"])
    };
    let images: Vec<(&str, Image)> = vec![
        ("cncf-p1", image::cncf(wasm(), "wasip1")),
        ("cncf-p2", image::cncf(wasm(), "wasip2")),
        ("bytecode-alliance", image::bytecode_alliance(wasm())),
        ("content-layer", image::content_layer(wasm())),
        ("module-content-layer", image::module_content_layer(wasm())),
        ("oras", image::oras(wasm())),
        ("files", files().build()?),
        ("files-wasi", files().platform("wasi/wasm").build()?),
        ("files-arm64", files().platform("linux/arm64").build()?),
    ];
    for (name, image) in &images {
        let reference = registry.push(&format!("{name}:v1"), image).await?;
        let id = cri
            .pull(&reference)
            .await
            .with_context(|| format!("pull {name}"))?;
        assert_eq!(id, image.config.digest(), "CRI calls {name} by its config");
        containerd
            .import(&format!("example.test/{name}:v1"), image)
            .await?;
        // Whatever the format, a task's snapshot can be made (ctr run refuses some of them).
        let task = containerd
            .task(&format!("example.test/{name}:v1"))
            .runtime(RUNC);
        let prepared = task
            .prepare()
            .await
            .with_context(|| format!("prepare a task of {name}"))?;
        prepared.remove().await?;
    }

    // Only what fits the machine is unpacked by the default pull of 2.3; a pod of the rest has no rootfs there.
    let snapshots = containerd.ctr("k8s.io", &["snapshots", "ls"]).await?;
    for (name, unpacked) in [("files", true), ("files-wasi", version == Version::V1_7)] {
        let (_, image) = images
            .iter()
            .find(|(found, _)| *found == name)
            .context("it is in the list")?;
        assert_eq!(
            snapshots.contains(&image.layers[0].digest()),
            unpacked,
            "{name}: {snapshots}"
        );
    }

    // An index is resolved to the entry that fits the machine; wasm alone fits none.
    let native = files().build()?;
    let index = Index::new(vec![native.clone(), image::bytecode_alliance(wasm())]);
    let reference = registry.push("index:v1", &index).await?;
    assert_eq!(cri.pull(&reference).await?, native.config.digest());
    let index = Index::new(vec![image::bytecode_alliance(wasm())]);
    let reference = registry.push("wasm-index:v1", &index).await?;
    let refused = cri.pull(&reference).await.expect_err("no entry fits");
    assert!(
        refused
            .message()
            .contains("no match for platform in manifest"),
        "{refused}"
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_by_2() -> Result<()> {
    pulls(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_by_1_7() -> Result<()> {
    pulls(Version::V1_7).await
}
