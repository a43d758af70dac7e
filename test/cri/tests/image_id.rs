//! CRI's image id is the digest of the config alone. An attacker who copies a victim's config under a manifest of his own
//! gets the same id, and containerd then opens whichever image comes first in its list.

use anyhow::{Context, Result};
use cri_tests::{House, house, run};
use harness::image::{self, Blob, CONTENT_LAYER, Image, WASM_LAYER};
use harness::{Cri, Version, guest};
use k8s_cri::v1::ContainerState;
use tonic::{Code, Status};

/// Starts a container of an image that has to be refused, and returns the refusal, which the container's status shows too.
async fn refused(cri: &Cri<'_>, image: &str) -> Result<Status> {
    let pod = cri.pod("sampan").run().await?;
    let container = pod
        .container("guest", image)
        .command(["/"])
        .create()
        .await?;
    let started = container.start().await;
    let shown = container.status().await?;
    let said = container.logs().map(|logs| logs.stdout).unwrap_or_default();
    pod.remove().await?;
    let status = started
        .err()
        .with_context(|| format!("{image} has started and says {said:?}"))?;
    assert_eq!(shown.state(), ContainerState::ContainerExited);
    assert_eq!(
        (shown.reason.as_str(), shown.exit_code),
        ("StartError", 128)
    );
    assert!(
        shown.message.contains(status.message()) || status.message().contains(&shown.message),
        "{:?} and {:?}",
        shown.message,
        status.message()
    );
    Ok(status)
}

fn expect(status: &Status, code: Code, names: &[&str]) {
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    assert!(!message.contains('\n'), "more than a line: {message:?}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in {message:?}");
    }
}

async fn runs_its_own(cri: &Cri<'_>, image: &str, who: &str) -> Result<()> {
    let (exit, logs) = run(cri, image, &["/"]).await?;
    assert_eq!(exit.exit_code, 0, "{image}: {exit:?} {logs:?}");
    assert!(
        logs.stdout.starts_with(&format!("hello from {who}\n")),
        "{image} ran another's module: {logs:?}"
    );
    Ok(())
}

/// Pushes under a tag and pulls by digest, as a careful user pins an image.
async fn pinned(house: &House, cri: &Cri<'_>, name: &str, image: &Image) -> Result<String> {
    let tagged = house.registry.push(name, image).await?;
    let repository = tagged.rsplit_once(':').context("a tag")?.0;
    let reference = format!("{repository}@{}", image.digest());
    cri.pull(&reference)
        .await
        .with_context(|| format!("pull {reference}"))?;
    Ok(reference)
}

async fn pulled(house: &House, cri: &Cri<'_>, name: &str, image: &Image) -> Result<String> {
    let reference = house.registry.push(name, image).await?;
    cri.pull(&reference)
        .await
        .with_context(|| format!("pull {reference}"))?;
    Ok(reference)
}

/// The victim's config, byte by byte, over another module.
fn forgery(victim: &Image, module: &str, media_type: &str) -> Result<Image> {
    let layer = Blob::new(media_type, guest(module)?);
    Ok(Image::assemble(victim.config.clone(), vec![layer]))
}

/// The CNCF artifact, whose config names its layer. The attacker may come first or last.
async fn bound_by_the_config(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    for (round, attacker_first) in [("a", false), ("z", true)] {
        let victim = image::cncf(guest("hello.wasm")?, "wasip1");
        let attacker = forgery(&victim, "hello-c.wasm", WASM_LAYER)?;
        // The names sort before and behind the victim's, should anybody go by that.
        let attacker_name = format!("{round}/attacker:v1");
        let (pin, forged) = if attacker_first {
            let forged = pulled(&house, &cri, &attacker_name, &attacker).await?;
            (
                pinned(&house, &cri, &format!("m/victim-{round}:v1"), &victim).await?,
                forged,
            )
        } else {
            let pin = pinned(&house, &cri, &format!("m/victim-{round}:v1"), &victim).await?;
            runs_its_own(&cri, &pin, "hello").await?;
            (pin, pulled(&house, &cri, &attacker_name, &attacker).await?)
        };
        let id = cri.image_id(&pin).await?;
        assert!(id.is_some(), "the victim is there");
        assert_eq!(
            id,
            cri.image_id(&forged).await?,
            "no confusion, no test of it"
        );

        runs_its_own(&cri, &pin, "hello").await?;
        match version {
            Version::V2 => {
                let (own, other) = (attacker.layers[0].digest(), victim.layers[0].digest());
                expect(
                    &refused(&cri, &forged).await?,
                    Code::InvalidArgument,
                    &[&own, &other, &forged],
                );
            }
            // This release does not say which name the pod wrote, only the id; and that is the victim's. So what runs is
            // what the config of this id is about, and never the attacker's.
            Version::V1_7 => runs_its_own(&cri, &forged, "hello").await?,
        }
        runs_its_own(&cri, &pin, "hello").await?;
    }

    // The attacker alone, and a config that another attacker has added a layer to.
    let victim = image::cncf(guest("hello.wasm")?, "wasip1");
    let attacker = forgery(&victim, "hello-c.wasm", WASM_LAYER)?;
    let forged = pulled(&house, &cri, "alone/attacker:v1", &attacker).await?;
    let (own, other) = (attacker.layers[0].digest(), victim.layers[0].digest());
    expect(
        &refused(&cri, &forged).await?,
        Code::InvalidArgument,
        &[&own, &other],
    );
    house.containerd.assert_clean().await
}

/// Formats whose config names no layer: the name that the pod wrote decides, where containerd passes it on; else nobody
/// runs, and the message has both digests.
async fn bound_by_the_name(version: Version) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let victim = image::content_layer(guest("hello.wasm")?);
    let attacker = forgery(&victim, "hello-c.wasm", CONTENT_LAYER)?;
    let pin = pinned(&house, &cri, "m/victim:v1", &victim).await?;
    runs_its_own(&cri, &pin, "hello").await?;
    let mut forged = Vec::new();
    for name in ["a/attacker:v1", "z/attacker:v1"] {
        forged.push(pulled(&house, &cri, name, &attacker).await?);
    }
    for reference in &forged {
        assert_eq!(cri.image_id(&pin).await?, cri.image_id(reference).await?);
    }
    match version {
        Version::V2 => {
            runs_its_own(&cri, &pin, "hello").await?;
            for reference in &forged {
                runs_its_own(&cri, reference, "hello-c").await?;
            }
        }
        Version::V1_7 => {
            let digests = [victim.digest(), attacker.digest()];
            let names: Vec<&str> = digests.iter().map(String::as_str).collect();
            for reference in forged.iter().chain([&pin]) {
                expect(
                    &refused(&cri, reference).await?,
                    Code::FailedPrecondition,
                    &names,
                );
            }
        }
    }
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_config_runs_nothing_on_2() -> Result<()> {
    bound_by_the_config(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_config_runs_nothing_on_1_7() -> Result<()> {
    bound_by_the_config(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_config_confuses_nobody_on_2() -> Result<()> {
    bound_by_the_name(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_config_confuses_nobody_on_1_7() -> Result<()> {
    bound_by_the_name(Version::V1_7).await
}
