//! An image, followed to its guest by the rules that the shim follows (`image`), in a content store that holds what was
//! fetched.

use std::path::Path;

use image::{Binding, Content, ImageError, ImageGuest, Platform, Target, guest_of};
use plan::Digest;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::arguments::Registry;
use crate::failure::{Failure, Kind, Outcome};
use crate::source::registry::Remote;
use crate::source::unpack;

/// An image whose blobs are on this machine.
pub(crate) struct Image {
    pub(crate) content: Content,
    pub(crate) guest: ImageGuest,
    pub(crate) config: ImageConfig,
    pub(crate) facts: Facts,
    /// Its layers over each other, where they are a file system.
    pub(crate) files: Option<TempDir>,
    /// Where fetched blobs are.
    _fetched: Option<TempDir>,
}

/// What of an image's config concerns the process (OCI image-spec, "config").
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
}

/// Go writes an empty list as `null`.
fn or_nothing<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// What is told about an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    pub(crate) name: String,
    /// What the name leads to.
    pub(crate) digest: String,
    /// Platforms of its index, if it is one.
    pub(crate) index: Option<Vec<String>>,
    /// The manifest that a node takes.
    pub(crate) manifest: String,
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    /// Platform that the config names.
    pub(crate) platform: Option<String>,
    /// What ties the program to the image's id.
    pub(crate) bound_by: &'static str,
    /// Whether the config says what runs.
    pub(crate) has_command: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blob {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
}

/// A manifest or an index, as far as it is shown. `image` has read it strictly before.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(flatten)]
    blob: Blob,
    platform: Option<PlatformName>,
}

#[derive(Debug, Default, Deserialize)]
struct PlatformName {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<ImageConfig>,
    #[serde(flatten)]
    platform: PlatformName,
}

/// Nothing in the config binds the program.
pub(crate) const BY_NAME: &str = "the image's name alone";
/// Documents and layers that an image may make us fetch.
const FETCHES: u32 = 512;

/// An image of a registry.
pub(super) fn of_registry(name: &str, registry: &Registry) -> Outcome<Image> {
    let dir = TempDir::new()
        .map_err(|error| Failure::at(Kind::System, "cannot make a directory", error))?;
    let content = Content::new(dir.path());
    let mut remote = Remote::open(name, registry, &content)?;
    let target = remote.resolve()?;
    let mut image = follow(name, content, &target, &mut |digest| {
        remote.fetch(digest).map(|()| true)
    })?;
    image._fetched = Some(dir);
    Ok(image)
}

/// An image in a directory (OCI image-layout): `index.json` and `blobs`.
pub(super) fn of_layout(dir: &Path) -> Outcome<Image> {
    let name = dir.display().to_string();
    let index = dir.join("index.json");
    let text = std::fs::read(&index).map_err(|error| {
        let attempt = format!(
            "{name} is a directory, but no OCI image layout: {}",
            index.display()
        );
        Failure::at(Kind::Wrong, attempt, error)
    })?;
    let document: Document = serde_json::from_slice(&text).map_err(|error| {
        Failure::at(
            Kind::Wrong,
            format!("cannot read {}", index.display()),
            error,
        )
    })?;
    let [entry] = document.manifests.as_slice() else {
        return Err(Failure::new(
            Kind::Wrong,
            format!(
                "{} names {} images, one is expected",
                index.display(),
                document.manifests.len()
            ),
        ));
    };
    let target = Target {
        digest: digest(&entry.blob.digest)?,
        media_type: entry.blob.media_type.clone(),
        size: Some(entry.blob.size),
    };
    follow(&name, Content::new(dir), &target, &mut |_| Ok(false))
}

fn digest(text: &str) -> Outcome<Digest> {
    text.parse()
        .map_err(|error: plan::DigestError| Failure::of(Kind::Wrong, error))
}

/// Follows a target to its guest; what is missing on the way is asked of `fetch`, which says whether it is there now.
fn follow(
    name: &str,
    content: Content,
    target: &Target,
    fetch: &mut dyn FnMut(&Digest) -> Outcome<bool>,
) -> Outcome<Image> {
    let host = Platform::host();
    let mut fetches = 0;
    let guest = loop {
        match guest_of(&content, target, &host) {
            Ok(guest) => break guest,
            Err(ImageError::Missing { digest, .. }) if fetches < FETCHES && fetch(&digest)? => {
                fetches += 1;
            }
            Err(error) => {
                let kind = match error.fault() {
                    image::Fault::NotFound => Kind::NotFound,
                    image::Fault::Internal => Kind::System,
                    image::Fault::Invalid | image::Fault::Precondition => Kind::Refused,
                };
                return Err(Failure::at(kind, format!("image {name}"), error));
            }
        }
    };
    let top = document(&content, &target.digest)?;
    let (manifest, found) = manifest_of(&content, target, &top, guest.config())?;
    let config: Config = read(&content, guest.config())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let files = match &guest {
        ImageGuest::Layer { .. } => None,
        ImageGuest::Rootfs { .. } => {
            let layers = found.layers.iter().map(|layer| {
                let digest = digest(&layer.digest)?;
                let path = content.path(&digest);
                if !path.exists() && !fetch(&digest)? {
                    return Err(Failure::new(
                        Kind::NotFound,
                        format!("image {name}: layer {digest} is not there"),
                    ));
                }
                Ok((layer.media_type.clone(), path))
            });
            let layers: Vec<_> = layers.collect::<Outcome<_>>()?;
            Some(unpack::unpack(&layers)?)
        }
    };
    let process = config.config.unwrap_or_default();
    let facts = Facts {
        name: name.to_owned(),
        digest: target.digest.to_string(),
        index: top.config.is_none().then(|| platforms(&top)),
        manifest: manifest.to_string(),
        config: found.config.unwrap_or(Blob {
            media_type: String::new(),
            digest: guest.config().to_string(),
            size: 0,
        }),
        layers: found.layers,
        platform: (!config.platform.architecture.is_empty()).then(|| config.platform.to_string()),
        bound_by: match &guest {
            ImageGuest::Layer { binding, .. } => match binding {
                Binding::LayerDigests => "layerDigests of the config",
                Binding::DiffIds => "rootfs.diff_ids of the config",
                Binding::Name => BY_NAME,
            },
            ImageGuest::Rootfs { .. } => "rootfs.diff_ids of the config (checked by containerd)",
        },
        has_command: !process.entrypoint.is_empty() || !process.cmd.is_empty(),
    };
    Ok(Image {
        content,
        guest,
        config: process,
        facts,
        files,
        _fetched: None,
    })
}

/// The manifest whose config has this digest: the target itself, or an entry of the index that it is.
fn manifest_of(
    content: &Content,
    target: &Target,
    top: &Document,
    config: &Digest,
) -> Outcome<(Digest, Document)> {
    let names = |document: &Document| {
        let found = document.config.as_ref().map(|blob| blob.digest.as_str());
        found == Some(config.to_string().as_str())
    };
    if names(top) {
        return Ok((target.digest, document(content, &target.digest)?));
    }
    for entry in &top.manifests {
        let digest = digest(&entry.blob.digest)?;
        match document(content, &digest) {
            Ok(found) if names(&found) => return Ok((digest, found)),
            // An entry for another platform, which was not fetched, or an index of its own.
            _ => {}
        }
    }
    Err(Failure::new(
        Kind::Wrong,
        format!(
            "the index {} leads to its manifest over another index",
            target.digest
        ),
    ))
}

fn document(content: &Content, digest: &Digest) -> Outcome<Document> {
    serde_json::from_slice(&read(content, digest)?)
        .map_err(|error| Failure::at(Kind::Wrong, format!("cannot read {digest}"), error))
}

fn read(content: &Content, digest: &Digest) -> Outcome<Vec<u8>> {
    let path = content.path(digest);
    std::fs::read(&path).map_err(|error| {
        Failure::at(
            Kind::System,
            format!("cannot read {}", path.display()),
            error,
        )
    })
}

fn platforms(index: &Document) -> Vec<String> {
    let name = |entry: &Entry| match &entry.platform {
        Some(platform) => platform.to_string(),
        None => "none".to_owned(),
    };
    index.manifests.iter().map(name).collect()
}

impl std::fmt::Display for PlatformName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The manifests that an index names; of a document that is none, none.
pub(super) fn entries(bytes: &[u8]) -> Vec<String> {
    let document = serde_json::from_slice::<Document>(bytes);
    let entries = document
        .map(|document| document.manifests)
        .unwrap_or_default();
    entries.into_iter().map(|entry| entry.blob.digest).collect()
}

/// What a document says it is; empty where it says nothing.
pub(super) fn media_type(bytes: &[u8]) -> String {
    serde_json::from_slice::<Document>(bytes)
        .map(|document| document.media_type)
        .unwrap_or_default()
}
