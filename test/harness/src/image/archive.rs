use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Blob, Content, Image};

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

/// Reads the first image of an OCI archive.
///
/// # Errors
/// When it is no such archive, or a part of it is missing.
pub fn read_archive(archive: &[u8]) -> Result<Image> {
    let mut files: HashMap<String, Bytes> = HashMap::new();
    for entry in tar::Archive::new(archive)
        .entries()
        .context("read the archive")?
    {
        let mut entry = entry.context("read the archive")?;
        let path = entry.path().context("read a path")?.display().to_string();
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {path}"))?;
        files.insert(path, bytes.into());
    }
    let blob = |descriptor: &Value| -> Result<Blob> {
        let word = |name: &str| descriptor[name].as_str().unwrap_or_default();
        let path = format!("blobs/{}", word("digest").replace(':', "/"));
        let bytes = files
            .get(&path)
            .with_context(|| format!("find {path} in the archive"))?;
        Ok(Blob::new(word("mediaType"), bytes.clone()))
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).context("read a document");
    let index = files
        .get("index.json")
        .context("find index.json in the archive")?;
    let manifest = blob(&json(index)?["manifests"][0])?;
    let parts = json(&manifest.bytes)?;
    let layers = parts["layers"]
        .as_array()
        .context("a manifest has layers")?;
    Ok(Image {
        config: blob(&parts["config"])?,
        layers: layers.iter().map(blob).collect::<Result<_>>()?,
        manifest,
        platform: None,
    })
}

/// Reads one file of an uncompressed layer, by its path without a leading slash.
///
/// # Errors
/// When it is no such layer, or has no such file.
pub fn read_file(layer: &Blob, path: &str) -> Result<Vec<u8>> {
    for entry in tar::Archive::new(&layer.bytes[..])
        .entries()
        .context("read the layer")?
    {
        let mut entry = entry.context("read the layer")?;
        if entry.path().context("read a path")?.as_os_str() == path {
            let mut bytes = Vec::new();
            entry
                .read_to_end(&mut bytes)
                .with_context(|| format!("read {path}"))?;
            return Ok(bytes);
        }
    }
    bail!("find {path} in the layer")
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
