//! Every format of wasm image, pulled by CRI's default path from a registry and run as a pod; on both containerd
//! releases, where a release takes the format at all.

use anyhow::{Context, Result};
use cri_tests::{House, house, house_of, run};
use harness::image::{self, Content, Index, Rootfs};
use harness::{Containerd, ContainerdBuilder, Cri, Version, guest};

/// Pushes, pulls, runs `/`, and expects the guest to say who it is.
async fn says(
    house: &House,
    cri: &Cri<'_>,
    name: &str,
    content: &impl Content,
    who: &str,
) -> Result<()> {
    let reference = house.registry.push(name, content).await?;
    cri.pull(&reference)
        .await
        .with_context(|| format!("pull {name}"))?;
    says_pulled(cri, &reference, &["/"], who).await
}

async fn says_pulled(cri: &Cri<'_>, reference: &str, command: &[&str], who: &str) -> Result<()> {
    let (exit, logs) = run(cri, reference, command).await?;
    assert_eq!(exit.exit_code, 0, "{reference}: {exit:?} {logs:?}");
    assert!(
        logs.stdout.starts_with(&format!("hello from {who}\n")),
        "{reference}: {logs:?}"
    );
    Ok(())
}

/// The CNCF artifact: modules and components of all three WASI versions.
async fn cncf(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    for (name, os) in [
        ("hello", "wasip1"),
        ("hello-p2", "wasip2"),
        ("hello-p3", "wasip2"),
    ] {
        let image = image::cncf(guest(&format!("{name}.wasm"))?, os);
        says(&house, &cri, &format!("cncf/{name}:v1"), &image, name).await?;
    }
    house.containerd.assert_clean().await
}

/// The layers of the Bytecode Alliance, of oras and of wasm-to-oci under an image config.
async fn layers(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = image::bytecode_alliance(guest("hello.wasm")?);
    says(&house, &cri, "ba/module:v1", &image, "hello").await?;
    let image = image::bytecode_alliance(guest("hello-p2.wasm")?);
    says(&house, &cri, "ba/component:v1", &image, "hello-p2").await?;
    let image = image::content_layer(guest("hello-c.wasm")?);
    says(&house, &cri, "content/layer:v1", &image, "hello-c").await?;
    let image = image::module_content_layer(guest("hello-go.wasm")?);
    says(&house, &cri, "content/module:v1", &image, "hello-go").await?;
    house.containerd.assert_clean().await
}

/// An index with an entry for wasm beside entries for other machines.
async fn index(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let other = Rootfs::new()
        .file("/app.wasm", guest("exit-7.wasm")?)
        .platform("linux/s390x")
        .build()?;
    let ours = Rootfs::new()
        .file("/app.wasm", guest("hello.wasm")?)
        .build()?;
    let index = Index::new(vec![other, ours]);
    let reference = house.registry.push("index:v1", &index).await?;
    cri.pull(&reference).await.context("pull an index")?;
    says_pulled(&cri, &reference, &["/app.wasm"], "hello").await?;
    house.containerd.assert_clean().await
}

/// Images of ordinary layers with the program as a file, binary and text.
async fn files(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    for (file, who) in [
        ("hello.wasm", "hello"),
        ("hello-p2.wasm", "hello-p2"),
        ("hello.wat", "hello-wat"),
    ] {
        let path = format!("/bin/{file}");
        let image = Rootfs::new()
            .file(&path, guest(file)?)
            .entrypoint([path.as_str()])
            .build()?;
        let reference = house
            .registry
            .push(&format!("file/{who}:v1"), &image)
            .await?;
        cri.pull(&reference)
            .await
            .with_context(|| format!("pull {file}"))?;
        says_pulled(&cri, &reference, &[], who).await?;
    }
    house.containerd.assert_clean().await
}

/// The program as a file in an image that says it is for another platform. From containerd 2.3 the default pull does not
/// unpack it, so no shim is asked; its older pull does, and 1.7 knows no other.
async fn other_platforms(builder: ContainerdBuilder) -> Result<()> {
    let Some(house) = house_of(builder).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    for (number, platform) in ["wasi/wasm", "linux/arm64"].into_iter().enumerate() {
        for (file, who) in [("hello.wasm", "hello"), ("hello.wat", "hello-wat")] {
            let path = format!("/{file}");
            let image = Rootfs::new()
                .file(&path, guest(file)?)
                .platform(platform)
                .entrypoint([path.as_str()])
                .build()?;
            let name = format!("platform/{who}:v{number}");
            let reference = house.registry.push(&name, &image).await?;
            cri.pull(&reference)
                .await
                .with_context(|| format!("pull {name} for {platform}"))?;
            says_pulled(&cri, &reference, &[], who)
                .await
                .with_context(|| format!("{file} for {platform}"))?;
        }
    }
    house.containerd.assert_clean().await
}

/// What oras makes: all of these have one config, so one image id.
async fn pulled_of_oras(house: &House, cri: &Cri<'_>) -> Result<Vec<(String, &'static str)>> {
    let mut pulled = Vec::new();
    for who in ["hello", "hello-c", "hello-p2"] {
        let image = image::oras(guest(&format!("{who}.wasm"))?);
        let reference = house
            .registry
            .push(&format!("oras/{who}:v1"), &image)
            .await?;
        let id = cri
            .pull(&reference)
            .await
            .with_context(|| format!("pull {who}"))?;
        assert_eq!(id, image.config.digest());
        pulled.push((reference, who));
    }
    Ok(pulled)
}

#[tokio::test(flavor = "multi_thread")]
async fn cncf_artifacts_on_2() -> Result<()> {
    cncf(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn cncf_artifacts_on_1_7() -> Result<()> {
    cncf(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_layers_on_2() -> Result<()> {
    layers(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wasm_layers_on_1_7() -> Result<()> {
    layers(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_on_2() -> Result<()> {
    index(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_on_1_7() -> Result<()> {
    index(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_a_rootfs_on_2() -> Result<()> {
    files(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_a_rootfs_on_1_7() -> Result<()> {
    files(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_for_other_platforms_on_2_by_its_older_pull() -> Result<()> {
    other_platforms(Containerd::builder().use_local_image_pull()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_for_other_platforms_on_1_7() -> Result<()> {
    other_platforms(Containerd::builder().version(Version::V1_7)).await
}

/// Each pod runs the image that it names.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_of_oras_side_by_side_on_2() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    for (reference, who) in pulled_of_oras(&house, &cri).await? {
        says_pulled(&cri, &reference, &["/"], who).await?;
    }
    house.containerd.assert_clean().await
}

/// 1.7 does not tell which name the pod gave. One alone runs; of several none does, and the message names two of them.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_of_oras_one_at_a_time_on_1_7() -> Result<()> {
    let Some(house) = house(Version::V1_7).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let alone = image::oras(guest("hello.wasm")?);
    says(&house, &cri, "oras/alone:v1", &alone, "hello").await?;
    for (reference, _) in pulled_of_oras(&house, &cri).await? {
        let error = run(&cri, &reference, &["/"])
            .await
            .expect_err("nobody knows which one is meant");
        let status = error
            .downcast_ref::<tonic::Status>()
            .with_context(|| format!("CRI's own answer, not {error:#}"))?;
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
        assert_eq!(status.message().matches("sha256:").count(), 2, "{status}");
    }
    house.containerd.assert_clean().await
}
