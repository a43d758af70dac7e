//! Writing the images that the contestants run into containerd's stores, as a pull would leave them.

use anyhow::{Context as _, Result};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{CommitSnapshotRequest, PrepareSnapshotRequest};
use containerd_client::services::v1::{
    ApplyRequest, CreateImageRequest, Image as ImageRecord, WriteAction, WriteContentRequest,
};
use containerd_client::tonic::Request;
use containerd_client::tonic::transport::Channel;
use containerd_client::types::Descriptor;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::client::{SNAPSHOTTER, request, wanted, within};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM_LAYER: &str = "application/wasm";

/// An image that containers can be made from.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    /// The committed snapshot of its rootfs; empty for an artifact, whose containers get an empty rootfs.
    pub(crate) snapshot: String,
}

/// A CNCF Wasm artifact: one layer, which is the module or component itself; `os` is `wasip1` or `wasip2`.
pub(crate) async fn artifact(
    channel: &Channel,
    name: &str,
    os: &str,
    module: &[u8],
) -> Result<Image> {
    let layer = digest(module);
    let config = json!({
        "architecture": "wasm",
        "os": os,
        "created": "2026-01-01T00:00:00Z",
        "layerDigests": [layer],
    });
    let config = write(channel, WASM_CONFIG, config.to_string().as_bytes()).await?;
    let layer = write(channel, WASM_LAYER, module).await?;
    record(channel, name, &config, &layer).await?;
    Ok(Image {
        name: name.to_owned(),
        snapshot: String::new(),
    })
}

/// An image whose rootfs holds one executable file.
pub(crate) async fn rootfs(
    channel: &Channel,
    name: &str,
    file: &str,
    content: &[u8],
) -> Result<Image> {
    let layer = tar_of(file, content)?;
    let diff_id = digest(&layer);
    let config = json!({
        "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": [format!("/{file}")]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let layer = write(channel, TAR_LAYER, &layer).await?;
    // With a single layer the chain id is the layer's own.
    unpack(channel, &layer, &diff_id).await?;
    let config = write(channel, IMAGE_CONFIG, config.to_string().as_bytes()).await?;
    record(channel, name, &config, &layer).await?;
    Ok(Image {
        name: name.to_owned(),
        snapshot: diff_id,
    })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn tar_of(file: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, file, content)?;
    Ok(archive.into_inner()?)
}

/// Stores the manifest and the image record.
async fn record(
    channel: &Channel,
    name: &str,
    config: &Descriptor,
    layer: &Descriptor,
) -> Result<()> {
    let described = |descriptor: &Descriptor| {
        json!({
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config),
        "layers": [described(layer)],
    });
    let target = write(channel, MANIFEST, manifest.to_string().as_bytes()).await?;
    ImagesClient::new(channel.clone())
        .create(request(CreateImageRequest {
            image: Some(ImageRecord {
                name: name.to_owned(),
                target: Some(target),
                ..Default::default()
            }),
            ..Default::default()
        }))
        .await
        .with_context(|| format!("create image {name}"))?;
    Ok(())
}

/// Bytes in one message: containerd takes 16 MB at most.
const MESSAGE: usize = 4 << 20;

async fn write(channel: &Channel, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let digest = digest(bytes);
    let size = i64::try_from(bytes.len())?;
    let mut messages = Vec::new();
    for (number, part) in bytes.chunks(MESSAGE).enumerate() {
        let offset = number * MESSAGE;
        let last = offset + part.len() == bytes.len();
        let action = if last {
            WriteAction::Commit
        } else {
            WriteAction::Write
        };
        messages.push(WriteContentRequest {
            action: action.into(),
            r#ref: format!("bench-{digest}"),
            total: size,
            expected: digest.clone(),
            offset: i64::try_from(offset)?,
            data: part.to_vec(),
            labels: wanted(),
        });
    }
    let mut answers = ContentClient::new(channel.clone())
        .write(within(Request::new(futures::stream::iter(messages))))
        .await
        .with_context(|| format!("write content {digest}"))?
        .into_inner();
    while answers
        .message()
        .await
        .with_context(|| format!("write content {digest}"))?
        .is_some()
    {}
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        ..Default::default()
    })
}

async fn unpack(channel: &Channel, layer: &Descriptor, name: &str) -> Result<()> {
    let key = format!("unpack-{name}");
    let mut snapshots = SnapshotsClient::new(channel.clone());
    let mounts = snapshots
        .prepare(request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            labels: wanted(),
            ..Default::default()
        }))
        .await
        .with_context(|| format!("prepare snapshot {key}"))?
        .into_inner()
        .mounts;
    DiffClient::new(channel.clone())
        .apply(request(ApplyRequest {
            diff: Some(layer.clone()),
            mounts,
            ..Default::default()
        }))
        .await
        .with_context(|| format!("apply layer {}", layer.digest))?;
    snapshots
        .commit(request(CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key,
            labels: wanted(),
        }))
        .await
        .with_context(|| format!("commit snapshot {name}"))?;
    Ok(())
}
