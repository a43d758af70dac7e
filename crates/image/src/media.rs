//! The media types of field and specifications: which layer is a wasm program, which is a
//! filesystem, which is native code that somebody else compiled.

/// Config of the CNCF Wasm OCI artifact.
pub(crate) const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

const IMAGE_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

const WASM_LAYERS: [&str; 4] = [
    // CNCF Wasm OCI artifact: `wkg oci push`.
    "application/wasm",
    // runwasi's images.
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    // `wasm-to-oci`, `oras push`, older Spin.
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

const FILESYSTEM_LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
];

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// What a layer is, by its media type alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Wasm,
    Filesystem,
    Precompiled,
    Other,
}

/// Media types compare without regard to case and without parameters (RFC 6838, 4.2; RFC 2045, 5.1).
fn plain(media_type: &str) -> String {
    media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

pub(crate) fn layer(media_type: &str) -> Layer {
    let media_type = plain(media_type);
    if media_type.contains("cwasm") || media_type.contains("precompiled") {
        Layer::Precompiled
    } else if WASM_LAYERS.contains(&media_type.as_str()) {
        Layer::Wasm
    } else if FILESYSTEM_LAYERS
        .iter()
        .any(|prefix| media_type.starts_with(prefix))
    {
        Layer::Filesystem
    } else {
        Layer::Other
    }
}

/// Whether a title (`org.opencontainers.image.title`) is the name of native code: `.cwasm` is
/// what `wasmtime compile` writes, `.aot` what `wamrc` does.
pub(crate) fn titled_precompiled(title: &str) -> bool {
    let title = title.to_ascii_lowercase();
    title.ends_with(".cwasm") || title.ends_with(".aot")
}

/// Whether a config of this type must be one that we understand.
pub(crate) fn is_known_config(media_type: &str) -> bool {
    let media_type = plain(media_type);
    media_type == WASM_CONFIG || IMAGE_CONFIGS.contains(&media_type.as_str())
}

pub(crate) fn is_wasm_config(media_type: &str) -> bool {
    plain(media_type) == WASM_CONFIG
}

pub(crate) fn is_index(media_type: &str) -> bool {
    INDEXES.contains(&plain(media_type).as_str())
}

pub(crate) fn is_manifest(media_type: &str) -> bool {
    MANIFESTS.contains(&plain(media_type).as_str())
}

/// The wasm layer types, for a message that says what would have been taken.
pub(crate) fn wasm_layers() -> String {
    WASM_LAYERS.join(", ")
}
