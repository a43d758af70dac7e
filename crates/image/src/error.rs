use std::io;
use std::path::PathBuf;

use plan::Digest;

use crate::{Platform, media};

/// Why an image gives no guest. The image's name is the caller's to add.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A blob is not on the node.
    #[error("blob {digest} is not in the content store ({}): pull the image again", path.display())]
    Missing {
        /// Which.
        digest: Digest,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A blob cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob has another content than its name says.
    #[error(
        "blob {expected} is corrupt: its content has the digest {actual}; remove the image and pull it again"
    )]
    Corrupt {
        /// The digest it was asked by.
        expected: Digest,
        /// The digest of what was there.
        actual: Digest,
    },
    /// A manifest, index or config is too large.
    #[error("{digest} has {size} bytes, a manifest or config may have {limit}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Declared or actual, the larger.
        size: u64,
        /// [`crate::DOCUMENT_LIMIT`].
        limit: u64,
    },
    /// A blob has another size than the descriptor says.
    #[error("blob {digest} has {actual} bytes, its descriptor says {declared}")]
    Size {
        /// Which.
        digest: Digest,
        /// In the descriptor.
        declared: u64,
        /// On disk.
        actual: u64,
    },
    /// A document is not what its specification says.
    #[error("{what} {digest} is invalid: {reason}")]
    Invalid {
        /// `manifest` (or index), `config`.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// An index has no entry for this node.
    #[error(
        "index {index} has no manifest for wasi/wasm or {host}, only for {}",
        list(available)
    )]
    NoPlatform {
        /// The index.
        index: Digest,
        /// What would fit beside wasm.
        host: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// Indexes within indexes without end.
    #[error("index {0} leads to too many further documents")]
    TooDeep(Digest),
    /// More than one wasm layer.
    #[error("manifest {manifest} has two wasm layers, {first} and {second}: one is the limit")]
    TwoLayers {
        /// The manifest.
        manifest: Digest,
        /// Its first wasm layer.
        first: Digest,
        /// Its second.
        second: Digest,
    },
    /// Neither a wasm layer nor a filesystem.
    #[error(
        "manifest {manifest} has no wasm layer: its layers are {}, known are {}",
        list(found),
        media::wasm_layers()
    )]
    NoLayer {
        /// The manifest.
        manifest: Digest,
        /// Media types of its layers.
        found: Vec<String>,
    },
    /// Native code made elsewhere.
    #[error(
        "layer {layer} is precompiled native code (`{name}`), which is never run: push the .wasm itself, it is compiled on the node"
    )]
    Precompiled {
        /// The layer.
        layer: Digest,
        /// Its media type or title.
        name: String,
    },
    /// A config that says it is for another architecture than wasm.
    #[error("config {config} is for {platform}, a wasm artifact must have architecture wasm")]
    Architecture {
        /// The config.
        config: Digest,
        /// What it says.
        platform: Platform,
    },
    /// Manifest and config disagree about the layers: a copy of somebody else's config, or a broken tool.
    #[error(
        "manifest {manifest} has the layer {layer}, but its config {config} is about {expected}: the config belongs to another image"
    )]
    Unbound {
        /// The manifest.
        manifest: Digest,
        /// The config.
        config: Digest,
        /// What the manifest would have run; `nothing` where it has fewer layers.
        layer: String,
        /// What the config names (`layerDigests`); `nothing` where it names fewer.
        expected: String,
    },
    /// One image id, several guests, and nothing that says which is meant.
    #[error(
        "image id is shared by manifests {first} and {second}, and nothing says which one the pod named: remove one of the images, or use containerd 2.0 or later"
    )]
    Ambiguous {
        /// One of them.
        first: Digest,
        /// Another.
        second: Digest,
    },
    /// No manifest at all.
    #[error("no manifest is known for the container's image: pull it again")]
    NoTarget,
}

/// Whose fault an error is; what the caller makes a status code of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something that was named does not exist.
    NotFound,
    /// The image or the container's description is wrong.
    Invalid,
    /// The node's state forbids it; an operator can change that.
    Precondition,
    /// The node failed.
    Internal,
}

impl ImageError {
    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } | Self::NoTarget => Fault::NotFound,
            Self::Read { .. } => Fault::Internal,
            Self::Corrupt { .. } | Self::Size { .. } | Self::Ambiguous { .. } => {
                Fault::Precondition
            }
            Self::TooLarge { .. }
            | Self::Invalid { .. }
            | Self::NoPlatform { .. }
            | Self::TooDeep(_)
            | Self::TwoLayers { .. }
            | Self::NoLayer { .. }
            | Self::Precompiled { .. }
            | Self::Architecture { .. }
            | Self::Unbound { .. } => Fault::Invalid,
        }
    }
}

/// At most a handful: a message stays a line, whatever an image lists.
fn list(items: &[String]) -> String {
    const SHOWN: usize = 8;
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut text = items
        .iter()
        .take(SHOWN)
        .map(|item| printable(item))
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}

/// A text from an image, fit for a line of a message: no control characters, not endless.
pub(crate) fn printable(text: &str) -> String {
    const LENGTH: usize = 200;
    let mut shown: String = text
        .chars()
        .take(LENGTH)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LENGTH).is_some() {
        shown.push('…');
    }
    shown
}
