//! The canary's image: the CNCF artifact, put into containerd's content store as an importing client does.
use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    CreateImageRequest, CreateRequest, DeleteImageRequest, DeleteRequest, Image, WriteAction,
    WriteContentRequest,
};
use containerd_client::types::Descriptor;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, ImageStatusRequest, PullImageRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::containerd::request::{CRI, gone_is_fine, within};
use crate::files::digest;

/// The image's name; `.invalid` is no registry's (RFC 2606).
pub(crate) const NAME: &str = "sampan.invalid/canary:v1";
/// What keeps the blobs from being collected until the image refers to them.
const LEASE: &str = "sampan-canary";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// CRI learns of an image by an event.
const NOTICED: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(50);

struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Blob {
    fn digest(&self) -> String {
        format!("sha256:{}", digest(&self.bytes))
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// A request in CRI's namespace, under our lease.
fn leased<T>(message: T) -> Request<T> {
    let mut request = within(CRI, message);
    request
        .metadata_mut()
        .insert("containerd-lease", LEASE.parse().expect("plain ASCII"));
    request
}

/// Puts the image there and waits until CRI knows it; returns the image's id.
pub(super) async fn import(channel: &Channel, wasm: &[u8]) -> Result<String> {
    let layer = Blob {
        media_type: "application/wasm",
        bytes: wasm.to_vec(),
    };
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "author": "sampan-node",
        "architecture": "wasm",
        "os": "wasip1",
        "layerDigests": [layer.digest()],
    });
    let config = Blob {
        media_type: "application/vnd.wasm.config.v0+json",
        bytes: config.to_string().into_bytes(),
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob {
        media_type: MANIFEST,
        bytes: manifest.to_string().into_bytes(),
    };
    let mut leases = LeasesClient::new(channel.clone());
    // It goes by itself, should nobody remove it.
    let expire = jiff::Timestamp::now() + Duration::from_secs(600);
    let request = CreateRequest {
        id: LEASE.to_owned(),
        labels: HashMap::from([("containerd.io/gc.expire".to_owned(), expire.to_string())]),
    };
    leases
        .create(within(CRI, request))
        .await
        .context("make a lease")?;
    for blob in [&layer, &config] {
        write(channel, blob, HashMap::new()).await?;
    }
    let below = [("config", &config), ("l.0", &layer)];
    let labels = below.map(|(name, blob)| {
        (
            format!("containerd.io/gc.ref.content.{name}"),
            blob.digest(),
        )
    });
    write(channel, &manifest, labels.into()).await?;
    let image = Image {
        name: NAME.to_owned(),
        target: Some(Descriptor {
            media_type: manifest.media_type.to_owned(),
            digest: manifest.digest(),
            size: i64::try_from(manifest.bytes.len()).context("the manifest is small")?,
            ..Descriptor::default()
        }),
        ..Image::default()
    };
    let request = CreateImageRequest {
        image: Some(image),
        ..CreateImageRequest::default()
    };
    ImagesClient::new(channel.clone())
        .create(leased(request))
        .await
        .with_context(|| format!("make the image {NAME}"))?;
    unlease(channel).await?;
    let known = async {
        loop {
            if let Some(id) = id(channel, NAME).await? {
                return anyhow::Ok(id);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(NOTICED, known)
        .await
        .with_context(|| format!("wait until CRI knows the image {NAME}"))?
}

/// Pulls an image by CRI; returns its id.
pub(super) async fn pull(channel: &Channel, name: &str) -> Result<String> {
    let request = PullImageRequest {
        image: Some(spec(name)),
        ..PullImageRequest::default()
    };
    let answer = ImageServiceClient::new(channel.clone())
        .pull_image(request)
        .await
        .with_context(|| format!("pull {name}"))?;
    Ok(answer.into_inner().image_ref)
}

/// Removes our image and our lease.
pub(super) async fn remove(channel: &Channel) -> Result<()> {
    unlease(channel).await?;
    let request = DeleteImageRequest {
        name: NAME.to_owned(),
        // So that its blobs are gone when this returns.
        sync: true,
        ..DeleteImageRequest::default()
    };
    let answer = ImagesClient::new(channel.clone())
        .delete(within(CRI, request))
        .await;
    gone_is_fine(answer).with_context(|| format!("remove the image {NAME}"))
}

async fn unlease(channel: &Channel) -> Result<()> {
    let request = DeleteRequest {
        id: LEASE.to_owned(),
        sync: false,
    };
    let answer = LeasesClient::new(channel.clone())
        .delete(within(CRI, request))
        .await;
    gone_is_fine(answer).context("remove the lease")
}

async fn write(channel: &Channel, blob: &Blob, labels: HashMap<String, String>) -> Result<()> {
    let request = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: format!("sampan-canary-{}", blob.digest()),
        total: i64::try_from(blob.bytes.len()).context("a blob is small")?,
        expected: blob.digest(),
        offset: 0,
        data: blob.bytes.clone(),
        labels,
    };
    let answer = ContentClient::new(channel.clone())
        .write(leased(futures::stream::iter([request])))
        .await;
    let written = async {
        let mut stream = answer?.into_inner();
        while stream.message().await?.is_some() {}
        Ok(())
    }
    .await;
    match written {
        // The same bytes are there: of an earlier canary that containerd has not collected yet.
        Err(status) if tonic::Status::code(&status) == Code::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("write the blob {}", blob.digest())),
    }
}

async fn id(channel: &Channel, name: &str) -> Result<Option<String>> {
    let request = ImageStatusRequest {
        image: Some(spec(name)),
        verbose: false,
    };
    let answer = ImageServiceClient::new(channel.clone())
        .image_status(request)
        .await
        .with_context(|| format!("ask CRI for the image {name}"))?;
    Ok(answer.into_inner().image.map(|image| image.id))
}

fn spec(name: &str) -> ImageSpec {
    ImageSpec {
        image: name.to_owned(),
        ..ImageSpec::default()
    }
}
