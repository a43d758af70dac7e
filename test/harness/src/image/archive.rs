use std::collections::HashSet;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Blob, Content};

/// Packs content as an OCI archive under a whole reference, as `ctr images import` takes it.
///
/// # Errors
/// Only when memory cannot be written to.
pub fn archive(reference: &str, content: &impl Content) -> Result<Vec<u8>> {
    let mut top = content.manifest().descriptor();
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    top["annotations"] =
        json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "mediaType": super::INDEX, "manifests": [top] });

    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", index.to_string().as_bytes())?;
    let mut packed = HashSet::new();
    let all = content
        .blobs()
        .into_iter()
        .chain(content.inner_manifests())
        .chain([content.manifest()]);
    for blob in all {
        let path = blob_path(blob);
        if packed.insert(path.clone()) {
            add(&mut tar, &path, &blob.bytes)?;
        }
    }
    tar.into_inner().context("finish the archive")
}

fn blob_path(blob: &Blob) -> String {
    format!("blobs/{}", blob.digest().replace(':', "/"))
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("pack {path}"))
}
