//! The termination message: what `kubectl describe pod` shows of a container that ended. The kubelet mounts a file and
//! reads it; here the tests do both.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cri_tests::{House, house};
use harness::{ContainerBuilder, Cri, Exit, Pod, Version};

const DEFAULT: &str = "/dev/termination-log";

/// The file as the kubelet makes it: below its directory of the pod, empty, for everybody to write to.
fn message_file(house: &House, pod: &Pod<'_>, container: &str) -> Result<PathBuf> {
    let uid = &pod
        .config()
        .metadata
        .as_ref()
        .context("a pod has metadata")?
        .uid;
    let dir = house
        .containerd
        .scratch()
        .dir()
        .join("kubelet/pods")
        .join(uid)
        .join("containers")
        .join(container);
    fs::create_dir_all(&dir)?;
    let file = dir.join("5af3c1d0");
    fs::write(&file, "")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
    Ok(file)
}

async fn ended(container: ContainerBuilder<'_>) -> Result<Exit> {
    let container = container.create().await?;
    container.start().await?;
    container.wait().await
}

/// Runs the probe in a pod of its own with the file mounted, and returns the exit code and the message.
async fn probe(
    house: &House,
    cri: &Cri<'_>,
    image: &str,
    args: &[&str],
    at: &str,
) -> Result<(i32, String)> {
    let pod = cri.pod("sampan").run().await?;
    let file = message_file(house, &pod, "app")?;
    let command = ["/"].into_iter().chain(args.iter().copied());
    let container = pod
        .container("app", image)
        .command(command)
        .user(1234, 1234)
        .mount(&file, at, false);
    let exit = ended(container).await?;
    pod.remove().await?;
    Ok((exit.exit_code, fs::read_to_string(&file)?))
}

async fn messages(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    // Where the kubelet puts it, and where a manifest may have asked for it.
    for at in [DEFAULT, "/last/words"] {
        let (code, message) = probe(&house, &cri, &image, &["trap"], at).await?;
        assert_eq!(code, 121, "{at}: {message}");
        let mut lines = message.lines();
        assert!(
            lines
                .next()
                .is_some_and(|line| line.starts_with("sampan: trap: wasm `unreachable`")),
            "{at}: {message}"
        );
        assert!(
            lines.next().is_some_and(|line| line.starts_with("  0: ")),
            "{at}: {message}"
        );
        assert!(message.len() <= 4096, "{} bytes", message.len());
    }
    // A guest that ends by itself says what it likes, or nothing.
    let (code, message) = probe(&house, &cri, &image, &["exit", "121"], DEFAULT).await?;
    assert_eq!((code, message.as_str()), (121, ""));
    let args = ["write", DEFAULT, "my own words"];
    let (code, message) = probe(&house, &cri, &image, &args, DEFAULT).await?;
    assert_eq!((code, message.as_str()), (0, "my own words"));
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_in_the_termination_message_on_2() -> Result<()> {
    messages(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_in_the_termination_message_on_1_7() -> Result<()> {
    messages(Version::V1_7).await
}

/// Two servers in one pod want the same port: what people do by mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_address_is_taken_leaves_a_message() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("http-p2", "wasip2").await?;
    let pod = cri.pod("sampan").run().await?;
    let first = pod
        .container("first", &image)
        .command(["/"])
        .create()
        .await?;
    first.start().await?;
    let address = pod.address().await?.context("the pod has an address")?;
    harness::listening((address, 8080).into()).await?;
    let file = message_file(&house, &pod, "second")?;
    let second = pod
        .container("second", &image)
        .command(["/"])
        .mount(&file, DEFAULT, false);
    assert_eq!(ended(second).await?.exit_code, 126);
    assert!(
        starts_with(&file, "sampan: cannot listen on 0.0.0.0:8080: ")?,
        "{}",
        fs::read_to_string(&file)?
    );
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// A file of the pod that happens to be mounted is none of ours.
#[tokio::test(flavor = "multi_thread")]
async fn other_files_are_left_alone() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let image = house.pulled_guest("probe", "wasip1").await?;
    let pod = cri.pod("sampan").run().await?;
    let file = message_file(&house, &pod, "another-container")?;
    let container =
        pod.container("app", &image)
            .command(["/", "trap"])
            .mount(&file, "/data/file", false);
    assert_eq!(ended(container).await?.exit_code, 121);
    assert_eq!(fs::read_to_string(&file)?, "");
    pod.remove().await?;
    house.containerd.assert_clean().await
}

fn starts_with(file: &Path, beginning: &str) -> Result<bool> {
    Ok(fs::read_to_string(file)?.starts_with(beginning))
}
