//! What `kubectl describe pod` shows when an image or a pod's description is wrong: one line that names it, on the default
//! path from a registry; and nothing is left behind.

use std::fs;

use anyhow::{Context, Result};
use cri_tests::house;
use harness::image::{self, Blob, Image, Index};
use harness::{CriContainer, Pod, Version, guest};
use k8s_cri::v1::ContainerState;
use serde_json::{Value, json};
use tonic::{Code, Status};

fn expect(status: &Status, code: Code, names: &[&str]) {
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    assert!(!message.contains('\n'), "more than a line: {message:?}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in {message:?}");
    }
}

async fn created<'a>(
    pod: &Pod<'a>,
    name: &str,
    image: &str,
    command: &str,
) -> Result<CriContainer<'a>> {
    Ok(pod
        .container(name, image)
        .command([command])
        .create()
        .await?)
}

/// Starting it has to fail, and the container's status says why.
async fn expect_start(container: &CriContainer<'_>, code: Code, names: &[&str]) -> Result<()> {
    let status = container.start().await.err().context("it has started")?;
    expect(&status, code, names);
    let shown = container.status().await?;
    assert_eq!(shown.state(), ContainerState::ContainerExited);
    assert_eq!(
        (shown.reason.as_str(), shown.exit_code),
        ("StartError", 128)
    );
    assert!(!shown.message.contains('\n'), "{:?}", shown.message);
    for name in names {
        assert!(
            shown.message.contains(name),
            "no {name:?} in {:?}",
            shown.message
        );
    }
    Ok(())
}

/// A CNCF artifact with these layers and this config.
fn artifact(layers: Vec<Vec<u8>>, edit: impl FnOnce(&mut Value)) -> Result<Image> {
    let base = image::cncf(Vec::new(), "wasip1");
    let layers: Vec<Blob> = layers
        .into_iter()
        .map(|wasm| Blob::new(image::WASM_LAYER, wasm))
        .collect();
    let mut config: Value = serde_json::from_slice(&base.config.bytes)?;
    config["layerDigests"] = layers.iter().map(Blob::digest).collect();
    edit(&mut config);
    Ok(Image::assemble(
        Blob::json(image::WASM_CONFIG, &config),
        layers,
    ))
}

async fn artifacts(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let hello = guest("hello.wasm")?;

    let text = artifact(vec![b"no program at all".to_vec()], |_| {})?;
    let image = house.pulled("text", &text).await?;
    let container = created(&pod, "text", &image, "/").await?;
    expect_start(
        &container,
        Code::InvalidArgument,
        &[&text.layers[0].digest(), "not WebAssembly"],
    )
    .await?;

    let half = artifact(vec![hello[..hello.len() / 2].to_vec()], |_| {})?;
    let image = house.pulled("half", &half).await?;
    let container = created(&pod, "half", &image, "/").await?;
    expect_start(
        &container,
        Code::InvalidArgument,
        &[&half.layers[0].digest(), "truncated"],
    )
    .await?;

    let two = artifact(vec![hello.clone(), guest("probe.wasm")?], |_| {})?;
    let image = house.pulled("two", &two).await?;
    let container = created(&pod, "two", &image, "/").await?;
    let digests = [two.layers[0].digest(), two.layers[1].digest()];
    expect_start(
        &container,
        Code::InvalidArgument,
        &[&image, "two wasm layers", &digests[0], &digests[1]],
    )
    .await?;

    let foreign = artifact(vec![hello.clone()], |config| {
        config["architecture"] = json!("riscv64")
    })?;
    let image = house.pulled("foreign", &foreign).await?;
    let container = created(&pod, "foreign", &image, "/").await?;
    expect_start(&container, Code::InvalidArgument, &[&image, "riscv64"]).await?;

    let future = artifact(vec![guest("future-interface.wasm")?], |config| {
        config["os"] = json!("wasip2")
    })?;
    let image = house.pulled("future", &future).await?;
    let container = created(&pod, "future", &image, "/").await?;
    expect_start(
        &container,
        Code::InvalidArgument,
        &["wasi:http/types@0.9.0", "WASI 0.9.0 has it"],
    )
    .await?;

    let exports = artifact(vec![guest("exports.wasm")?], |_| {})?;
    let image = house.pulled("exports", &exports).await?;
    let container = created(&pod, "exports", &image, "#nope").await?;
    expect_start(&container, Code::NotFound, &["`nope`", "`say`"]).await?;

    let file = image::Rootfs::new()
        .file("/app.wasm", hello.clone())
        .build()?;
    let image = house.pulled("file", &file).await?;
    let container = created(&pod, "file", &image, "/missing.wasm").await?;
    expect_start(
        &container,
        Code::NotFound,
        &["/missing.wasm", "does not exist in the image"],
    )
    .await?;

    // The pod is as good as before.
    let sound = artifact(vec![hello], |_| {})?;
    let image = house.pulled("sound", &sound).await?;
    let container = created(&pod, "sound", &image, "/").await?;
    container.start().await?;
    assert_eq!(container.wait().await?.exit_code, 0);
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_artifacts_are_named_on_2() -> Result<()> {
    artifacts(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_artifacts_are_named_on_1_7() -> Result<()> {
    artifacts(Version::V1_7).await
}

/// An index of wasm alone is refused by containerd itself when it pulls, which no shim can change; what it says is what
/// our documentation says that it says.
async fn indexes(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let wasm = image::bytecode_alliance(guest("hello.wasm")?);
    let other = image::Rootfs::new()
        .file("/app.wasm", guest("hello.wasm")?)
        .platform("plan9/mips")
        .build()?;
    for (name, index) in [
        ("wasm", Index::new(vec![wasm])),
        ("plan9", Index::new(vec![other])),
    ] {
        let reference = house.registry.push(&format!("{name}:v1"), &index).await?;
        let status = cri.pull(&reference).await.expect_err("nothing fits");
        expect(
            &status,
            Code::NotFound,
            &["no match for platform in manifest"],
        );
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_a_fitting_entry_fails_at_pull_on_2() -> Result<()> {
    indexes(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_a_fitting_entry_fails_at_pull_on_1_7() -> Result<()> {
    indexes(Version::V1_7).await
}

async fn pods(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house
        .pulled("hello", &artifact(vec![guest("hello.wasm")?], |_| {})?)
        .await?;

    // A typing mistake in an annotation of ours, of the pod and of a container.
    let ran = cri
        .pod("sampan")
        .annotation("sampan.dev/http-lisen", "8080")
        .run()
        .await;
    let error = ran.err().context("it runs")?;
    let status = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Status>())
        .context("CRI's answer")?;
    expect(
        status,
        Code::InvalidArgument,
        &["sampan.dev/http-lisen", "does not exist"],
    );

    let pod = cri.pod("sampan").run().await?;
    let container = pod
        .container("annotation", &image)
        .command(["/"])
        .annotation("sampan.dev/nope", "")
        .create()
        .await?;
    expect_start(
        &container,
        Code::InvalidArgument,
        &["sampan.dev/nope", "does not exist"],
    )
    .await?;

    // A volume that has gone between the two calls; containerd itself makes what is missing before.
    let volume = house.containerd.scratch().dir().join("volume");
    fs::create_dir(&volume)?;
    let container = pod
        .container("volume", &image)
        .command(["/"])
        .mount(&volume, "/data", true)
        .create()
        .await?;
    fs::remove_dir(&volume)?;
    expect_start(
        &container,
        Code::NotFound,
        &["/data", &volume.display().to_string()],
    )
    .await?;

    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_pods_are_named_on_2() -> Result<()> {
    pods(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_pods_are_named_on_1_7() -> Result<()> {
    pods(Version::V1_7).await
}
