//! Every format of wasm image through the Task API, as `ctr run` and nerdctl use it, for the platforms that CRI's pull
//! would not unpack.

use anyhow::Result;
use harness::image::{self, Content, Image, Index, Rootfs};
use harness::{Containerd, Version, guest};
use shim_tests::containerd;

async fn says(
    containerd: &Containerd,
    name: &str,
    content: &impl Content,
    args: &[&str],
    who: &str,
) -> Result<()> {
    let reference = format!("example.test/{name}:v1");
    containerd.import(&reference, content).await?;
    let output = containerd
        .task(&reference)
        .args(args.iter().copied())
        .run()
        .await?;
    assert_eq!(output.status, 0, "{name}: {}", output.stderr());
    assert!(
        output.stdout().starts_with(&format!("hello from {who}\n")),
        "{name}: {}",
        output.stdout()
    );
    Ok(())
}

fn file(platform: &str, name: &str) -> Result<Image> {
    let path = format!("/{name}");
    Rootfs::new()
        .file(&path, guest(name)?)
        .platform(platform)
        .entrypoint([path.as_str()])
        .build()
}

async fn layers(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let cases = [
        ("cncf", image::cncf(guest("hello.wasm")?, "wasip1"), "hello"),
        (
            "bytecode-alliance",
            image::bytecode_alliance(guest("hello-p2.wasm")?),
            "hello-p2",
        ),
        (
            "content",
            image::content_layer(guest("hello-c.wasm")?),
            "hello-c",
        ),
        (
            "module-content",
            image::module_content_layer(guest("hello-p3.wasm")?),
            "hello-p3",
        ),
        ("oras-1", image::oras(guest("hello.wasm")?), "hello"),
        ("oras-2", image::oras(guest("hello-c.wasm")?), "hello-c"),
    ];
    for (name, image, who) in cases {
        says(&containerd, name, &image, &["/"], who).await?;
    }
    containerd.assert_clean().await
}

async fn files(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    for (number, platform) in ["linux/amd64", "linux/arm64", "wasi/wasm"]
        .into_iter()
        .enumerate()
    {
        let image = file(platform, "hello.wasm")?;
        says(&containerd, &format!("wasm-{number}"), &image, &[], "hello").await?;
        let image = file(platform, "hello.wat")?;
        says(
            &containerd,
            &format!("wat-{number}"),
            &image,
            &[],
            "hello-wat",
        )
        .await?;
    }
    containerd.assert_clean().await
}

/// Of an index the entry for wasm counts, wherever it stands, and this machine's where there is none.
async fn index(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    let other = || file("linux/s390x", "hello.wat");
    let wasm = image::bytecode_alliance(guest("hello-p2.wasm")?);
    let content = Index::new(vec![other()?, wasm.clone()]);
    says(&containerd, "index-1", &content, &["/"], "hello-p2").await?;
    let content = Index::new(vec![wasm, other()?]);
    says(&containerd, "index-2", &content, &["/"], "hello-p2").await?;
    let host = Rootfs::new()
        .file("/app.wasm", guest("hello-c.wasm")?)
        .build()?;
    let content = Index::new(vec![other()?, host]);
    says(&containerd, "index-3", &content, &["/app.wasm"], "hello-c").await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_on_2() -> Result<()> {
    layers(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_on_1_7() -> Result<()> {
    layers(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_platform_on_2() -> Result<()> {
    files(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_platform_on_1_7() -> Result<()> {
    files(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_on_2() -> Result<()> {
    index(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_on_1_7() -> Result<()> {
    index(Version::V1_7).await
}
