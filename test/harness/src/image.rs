//! OCI content of every format that a wasm image comes in (and of those that attack the shim).
//!
//! Config blobs are unique unless a format forbids it: CRI's image id is the digest of the config, so two fixtures with
//! one config would be one image.
mod archive;
mod rootfs;
mod wasm;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use rootfs::{Rootfs, busybox, pause};
pub use wasm::{
    BYTECODE_ALLIANCE_LAYER, CONTENT_LAYER, EMPTY_CONFIG, MODULE_CONTENT_LAYER, WASM_CONFIG,
    WASM_LAYER, bytecode_alliance, cncf, content_layer, module_content_layer, oras,
};

/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image's config.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed tar layer.
pub const TAR_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Bytes with a media type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blob {
    /// What a descriptor calls it.
    pub media_type: String,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    /// A blob of these bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            bytes: bytes.into(),
        }
    }

    /// A blob of this JSON.
    #[must_use]
    pub fn json(media_type: &str, value: &Value) -> Self {
        Self::new(media_type, value.to_string())
    }

    /// `sha256:` and the digest.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(&self.bytes)))
    }

    /// The descriptor that a manifest or index refers to it by.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// What can be pushed or packed: an image or an index.
pub trait Content {
    /// The manifest or index at the top.
    fn manifest(&self) -> &Blob;
    /// The manifests below an index; none for an image.
    fn inner_manifests(&self) -> Vec<&Blob>;
    /// Configs and layers of all images.
    fn blobs(&self) -> Vec<&Blob>;
}

/// One image: config, layers, manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The config.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
    /// The manifest that binds them.
    pub manifest: Blob,
    /// `os/architecture` for an index; none when the format has no such thing.
    pub platform: Option<String>,
}

impl Image {
    /// Binds any config and layers, fitting or not, by a plain manifest.
    #[must_use]
    pub fn assemble(config: Blob, layers: Vec<Blob>) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Self {
            manifest: Blob::json(MANIFEST, &manifest),
            config,
            layers,
            platform: None,
        }
    }

    /// Sets the platform under which an index lists it, as in `wasi/wasm`.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Some(platform.to_owned());
        self
    }

    /// Changes the manifest (its config and layers are left as they are).
    #[must_use]
    pub fn edit_manifest(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        let mut manifest =
            serde_json::from_slice(&self.manifest.bytes).expect("we have written this manifest");
        edit(&mut manifest);
        self.manifest = Blob::json(MANIFEST, &manifest);
        self
    }

    /// The digest of the manifest: what a reference by digest names.
    #[must_use]
    pub fn digest(&self) -> String {
        self.manifest.digest()
    }
}

impl Content for Image {
    fn manifest(&self) -> &Blob {
        &self.manifest
    }

    fn inner_manifests(&self) -> Vec<&Blob> {
        Vec::new()
    }

    fn blobs(&self) -> Vec<&Blob> {
        std::iter::once(&self.config).chain(&self.layers).collect()
    }
}

/// An index over images.
#[derive(Clone, Debug)]
pub struct Index {
    images: Vec<Image>,
    index: Blob,
}

impl Index {
    /// Lists the images in this order, each under its platform if it has one.
    #[must_use]
    pub fn new(images: Vec<Image>) -> Self {
        let manifests: Vec<Value> = images.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        Self {
            index: Blob::json(INDEX, &index),
            images,
        }
    }
}

fn entry(image: &Image) -> Value {
    let mut entry = image.manifest.descriptor();
    if let Some((os, architecture)) = image
        .platform
        .as_deref()
        .and_then(|platform| platform.split_once('/'))
    {
        entry["platform"] = json!({ "os": os, "architecture": architecture });
    }
    entry
}

impl Content for Index {
    fn manifest(&self) -> &Blob {
        &self.index
    }

    fn inner_manifests(&self) -> Vec<&Blob> {
        self.images.iter().map(|image| &image.manifest).collect()
    }

    fn blobs(&self) -> Vec<&Blob> {
        self.images.iter().flat_map(Image::blobs).collect()
    }
}

pub use archive::{archive, read_archive, read_file};

#[cfg(test)]
mod tests;
