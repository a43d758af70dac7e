use std::path::PathBuf;

use plan::Digest;

use crate::content::{Content, Target};
use crate::document::{Config, Document, Entry, Layer, Manifest};
use crate::error::printable;
use crate::{ImageError, Platform, media};

/// How many manifests and indexes one image may lead through. A real index has one level and a
/// fitting entry or two; a hostile one could send us in circles of its own making.
const DOCUMENTS: u32 = 32;

/// Where an image's guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageGuest {
    /// In a layer of its own, which is the program.
    Layer {
        /// Digest of the layer, and so of the guest bytes.
        digest: Digest,
        /// Size in bytes.
        size: u64,
        /// Media type of the layer.
        media_type: String,
        /// Its file in the content store; open it with [`Content::open_layer`].
        path: PathBuf,
        /// What ties it to the image's id.
        binding: Binding,
        /// Digest of the config: CRI's image id.
        config: Digest,
    },
    /// In the rootfs, if anywhere: the layers are a filesystem.
    Rootfs {
        /// What the image says it is for, if it says.
        platform: Option<Platform>,
        /// Digest of the config: CRI's image id.
        config: Digest,
    },
}

impl ImageGuest {
    /// CRI's id of the image.
    #[must_use]
    pub const fn config(&self) -> &Digest {
        match self {
            Self::Layer { config, .. } | Self::Rootfs { config, .. } => config,
        }
    }
}

/// What ties a wasm layer to the image's id, the digest of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// `layerDigests` of the config (CNCF Wasm OCI artifact).
    LayerDigests,
    /// `rootfs.diff_ids` of the config.
    DiffIds,
    /// Nothing in the config. Only the manifest that the image's name leads to says which layer
    /// is meant, so the name must be known: see [`crate::choose`].
    Name,
}

/// Follows a target through index, manifest and config to the guest.
///
/// Of an index, the entries are tried in this order: wasm platforms, then `host`, then entries
/// that name no platform; entries whose blobs are not on the node are passed over, because
/// containerd pulls one platform of an index only. A broken entry is an error, never a reason to
/// take the next.
///
/// # Errors
/// [`ImageError`], a line that names digests and media types.
pub fn guest_of(
    content: &Content,
    target: &Target,
    host: &Platform,
) -> Result<ImageGuest, ImageError> {
    walk(content, target, host, &mut { DOCUMENTS }, &of_manifest)
}

/// CRI's id of the image that `target` leads to: the digest of its config, which is not looked
/// at. So an image has one even if [`guest_of`] refuses it.
///
/// # Errors
/// As [`guest_of`], but nothing about config and layers.
pub fn image_id(content: &Content, target: &Target, host: &Platform) -> Result<Digest, ImageError> {
    walk(
        content,
        target,
        host,
        &mut { DOCUMENTS },
        &|_, _, manifest| Ok(manifest.config.digest),
    )
}

fn walk<T>(
    content: &Content,
    target: &Target,
    host: &Platform,
    budget: &mut u32,
    of_manifest: &dyn Fn(&Content, Digest, &Manifest) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    *budget = budget
        .checked_sub(1)
        .ok_or(ImageError::TooDeep(target.digest))?;
    let bytes = content.read(&target.digest, target.size)?;
    let entries = match Document::parse(target, &bytes)? {
        Document::Manifest(manifest) => return of_manifest(content, target.digest, &manifest),
        Document::Index(entries) => entries,
    };
    let mut missing = None;
    for entry in fitting(&entries, host) {
        match walk(content, &entry.target, host, budget, of_manifest) {
            Err(error @ ImageError::Missing { .. }) => {
                missing.get_or_insert(error);
            }
            decided => return decided,
        }
    }
    Err(missing.unwrap_or_else(|| ImageError::NoPlatform {
        index: target.digest,
        host: host.clone(),
        available: entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref().map(ToString::to_string))
            .collect(),
    }))
}

/// The entries of an index that fit here, best first.
fn fitting<'a>(entries: &'a [Entry], host: &Platform) -> Vec<&'a Entry> {
    let rank = |entry: &Entry| match &entry.platform {
        Some(platform) if platform.is_wasm() => Some(0),
        Some(platform) if platform == host => Some(1),
        // Attestations say `unknown/unknown`; they fit nowhere.
        Some(_) => None,
        None => Some(2),
    };
    let mut ranked: Vec<_> = entries
        .iter()
        .filter_map(|entry| rank(entry).map(|rank| (rank, entry)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, entry)| entry).collect()
}

fn of_manifest(
    content: &Content,
    digest: Digest,
    manifest: &Manifest,
) -> Result<ImageGuest, ImageError> {
    let bytes = content.read(&manifest.config.digest, manifest.config.size)?;
    let config = Config::parse(&manifest.config, &bytes)?;
    let bound = bind_layers(digest, manifest, &config)?;
    for layer in &manifest.layers {
        refuse_precompiled(layer)?;
    }

    let mut wasm = manifest
        .layers
        .iter()
        .filter(|layer| media::layer(&layer.media_type) == media::Layer::Wasm);
    let Some(layer) = wasm.next() else {
        return of_rootfs(digest, manifest, config);
    };
    if let Some(second) = wasm.next() {
        return Err(ImageError::TwoLayers {
            manifest: digest,
            first: layer.digest,
            second: second.digest,
        });
    }
    if let Some(platform) = config.platform
        && media::is_wasm_config(&manifest.config.media_type)
        && !platform.architecture.starts_with("wasm")
    {
        return Err(ImageError::Architecture {
            config: manifest.config.digest,
            platform,
        });
    }
    let actual = content.size(&layer.digest)?;
    if actual != layer.size {
        return Err(ImageError::Size {
            digest: layer.digest,
            declared: layer.size,
            actual,
        });
    }
    let binding = if bound {
        Binding::LayerDigests
    } else if config.diff_ids.contains(&layer.digest.to_string()) {
        Binding::DiffIds
    } else {
        Binding::Name
    };
    Ok(ImageGuest::Layer {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type.clone(),
        path: content.path(&layer.digest),
        binding,
        config: manifest.config.digest,
    })
}

fn refuse_precompiled(layer: &Layer) -> Result<(), ImageError> {
    let name = if media::layer(&layer.media_type) == media::Layer::Precompiled {
        Some(&layer.media_type)
    } else {
        layer
            .title
            .as_ref()
            .filter(|title| media::titled_precompiled(title))
    };
    name.map_or(Ok(()), |name| {
        Err(ImageError::Precompiled {
            layer: layer.digest,
            name: printable(name),
        })
    })
}

/// Holds the manifest's layers against the config's `layerDigests`, whatever media type the
/// manifest gives the config. Whether there are any.
///
/// CRI's image id is the digest of the config, so this is what keeps a manifest with a copied
/// config from passing its own layer off as the other image's.
fn bind_layers(digest: Digest, manifest: &Manifest, config: &Config) -> Result<bool, ImageError> {
    let Some(expected) = config.layer_digests.as_deref().filter(|l| !l.is_empty()) else {
        return Ok(false);
    };
    let count = expected.len().max(manifest.layers.len());
    for index in 0..count {
        let layer = manifest.layers.get(index).map(|l| l.digest.to_string());
        let expected = expected.get(index);
        if layer.as_ref() != expected {
            let shown = |text: Option<&String>| text.map_or("nothing".to_owned(), |t| printable(t));
            return Err(ImageError::Unbound {
                manifest: digest,
                config: manifest.config.digest,
                layer: shown(layer.as_ref()),
                expected: shown(expected),
            });
        }
    }
    Ok(true)
}

fn of_rootfs(
    digest: Digest,
    manifest: &Manifest,
    config: Config,
) -> Result<ImageGuest, ImageError> {
    let filesystem = manifest
        .layers
        .iter()
        .all(|layer| media::layer(&layer.media_type) == media::Layer::Filesystem);
    if !filesystem || media::is_wasm_config(&manifest.config.media_type) {
        return Err(ImageError::NoLayer {
            manifest: digest,
            found: manifest
                .layers
                .iter()
                .map(|layer| layer.media_type.clone())
                .collect(),
        });
    }
    Ok(ImageGuest::Rootfs {
        platform: config.platform,
        config: manifest.config.digest,
    })
}
