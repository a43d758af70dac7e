//! The JSON of manifests, indexes and configs becomes our own types here and nowhere else.
//!
//! Unknown fields are skipped, a field that comes twice is an error, and nesting is bounded by
//! serde_json (128).

use std::collections::BTreeMap;

use plan::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{ImageError, Platform, Target, media};

const TITLE: &str = "org.opencontainers.image.title";

/// What a target turned out to be.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Target,
    pub(crate) layers: Vec<Layer>,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) title: Option<String>,
}

/// One manifest of an index.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    pub(crate) platform: Option<Platform>,
}

/// What of a config matters: what it is for, and which layers it is about.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) platform: Option<Platform>,
    pub(crate) layer_digests: Option<Vec<String>>,
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct RawConfig {
    architecture: Option<String>,
    os: Option<String>,
    #[serde(rename = "layerDigests")]
    layer_digests: Option<Vec<String>>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

impl Document {
    /// Takes the bytes of `target` apart. What it is, its fields decide; a media type, in the
    /// descriptor or inside, that says otherwise makes it ambiguous, and it is refused
    /// (CVE-2021-41190).
    pub(crate) fn parse(target: &Target, bytes: &[u8]) -> Result<Self, ImageError> {
        let invalid = |reason: String| ImageError::Invalid {
            what: "manifest",
            digest: target.digest,
            reason,
        };
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let index = match (&raw.manifests, &raw.config, &raw.layers, &raw.fs_layers) {
            (Some(_), None, None, None) => true,
            (None, Some(_), _, None) => false,
            (None, None, None, Some(_)) => {
                return Err(invalid(
                    "docker's schema 1 is not supported; push the image again with a current tool"
                        .to_owned(),
                ));
            }
            (None, None, ..) => return Err(invalid("it has no `config`".to_owned())),
            _ => return Err(invalid("it is manifest and index at once".to_owned())),
        };
        for claim in raw.media_type.iter().chain([&target.media_type]) {
            if (index && media::is_manifest(claim)) || (!index && media::is_index(claim)) {
                let is = if index { "an index" } else { "a manifest" };
                return Err(invalid(format!(
                    "it is {is}, but its media type is `{claim}`"
                )));
            }
        }
        if let Some(config) = raw.config {
            let layers = raw
                .layers
                .unwrap_or_default()
                .into_iter()
                .map(RawDescriptor::into_layer)
                .collect::<Result<_, _>>();
            return Ok(Self::Manifest(Manifest {
                config: config.into_target().map_err(&invalid)?,
                layers: layers.map_err(&invalid)?,
            }));
        }
        raw.manifests
            .unwrap_or_default()
            .into_iter()
            .map(RawDescriptor::into_entry)
            .collect::<Result<_, _>>()
            .map(Self::Index)
            .map_err(invalid)
    }
}

impl RawDescriptor {
    fn digest(&self) -> Result<Digest, String> {
        self.digest
            .parse()
            .map_err(|error: plan::DigestError| error.to_string())
    }

    fn into_target(self) -> Result<Target, String> {
        Ok(Target {
            digest: self.digest()?,
            media_type: self.media_type,
            size: Some(self.size),
        })
    }

    fn into_layer(self) -> Result<Layer, String> {
        Ok(Layer {
            digest: self.digest()?,
            size: self.size,
            title: self.annotations.and_then(|mut all| all.remove(TITLE)),
            media_type: self.media_type,
        })
    }

    fn into_entry(mut self) -> Result<Entry, String> {
        let platform = self.platform.take().map(|raw| Platform {
            os: raw.os,
            architecture: raw.architecture,
        });
        Ok(Entry {
            target: self.into_target()?,
            platform,
        })
    }
}

impl Config {
    /// Takes a config apart by its content. Its media type comes from the manifest, which an
    /// attacker may have written around somebody else's config: so the type decides only
    /// whether content that we do not understand is an error.
    pub(crate) fn parse(config: &Target, bytes: &[u8]) -> Result<Self, ImageError> {
        let raw: RawConfig = match serde_json::from_slice(bytes) {
            Ok(raw) => raw,
            Err(_) if !media::is_known_config(&config.media_type) => return Ok(Self::default()),
            Err(error) => {
                return Err(ImageError::Invalid {
                    what: "config",
                    digest: config.digest,
                    reason: error.to_string(),
                });
            }
        };
        let platform = raw.architecture.map(|architecture| Platform {
            os: raw.os.unwrap_or_default(),
            architecture,
        });
        Ok(Self {
            platform,
            layer_digests: raw.layer_digests,
            diff_ids: raw.rootfs.and_then(|r| r.diff_ids).unwrap_or_default(),
        })
    }
}
