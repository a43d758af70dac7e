//! The formats in which the wasm is a layer of its own.
use serde_json::json;

use super::{Blob, IMAGE_CONFIG, Image};
use crate::scratch::unique;

/// Config of the CNCF artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Layer of the CNCF artifact.
pub const WASM_LAYER: &str = "application/wasm";
/// Layer of the Bytecode Alliance's images.
pub const BYTECODE_ALLIANCE_LAYER: &str =
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
/// Layer of wasm-to-oci, oras and older Spin.
pub const CONTENT_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Its variant for modules.
pub const MODULE_CONTENT_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// The config of artifacts without one.
pub const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";

/// The CNCF Wasm OCI artifact, as `wkg oci push` makes it. `os` is `wasip1` or `wasip2`.
#[must_use]
pub fn cncf(wasm: Vec<u8>, os: &str) -> Image {
    let layer = Blob::new(WASM_LAYER, wasm);
    let mut config = json!({
        "created": "2026-01-01T00:00:00Z",
        "author": unique(),
        "architecture": "wasm",
        "os": os,
        "layerDigests": [layer.digest()],
    });
    if os != "wasip1" {
        config["component"] = json!({ "exports": [], "imports": [], "target": null });
    }
    Image::assemble(Blob::json(WASM_CONFIG, &config), vec![layer])
}

/// An OCI image whose layer has the Bytecode Alliance's media type, as runwasi's tool makes it.
#[must_use]
pub fn bytecode_alliance(wasm: Vec<u8>) -> Image {
    with_image_config(Blob::new(BYTECODE_ALLIANCE_LAYER, wasm))
}

/// An OCI image whose layer is `application/vnd.wasm.content.layer.v1+wasm`.
#[must_use]
pub fn content_layer(wasm: Vec<u8>) -> Image {
    with_image_config(Blob::new(CONTENT_LAYER, wasm))
}

/// An OCI image whose layer is `application/vnd.module.wasm.content.layer.v1+wasm`.
#[must_use]
pub fn module_content_layer(wasm: Vec<u8>) -> Image {
    with_image_config(Blob::new(MODULE_CONTENT_LAYER, wasm))
}

fn with_image_config(layer: Blob) -> Image {
    let config = json!({
        "created": "2026-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasi",
        "config": { "Labels": { "sampan.dev/unique": unique() } },
        // No diff_ids: containerd counts only the layers that it can unpack, and there is none.
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    Image::assemble(Blob::json(IMAGE_CONFIG, &config), vec![layer]).platform("wasi/wasm")
}

/// What `oras push REF --artifact-type LAYER app.wasm:LAYER` makes: all such artifacts have the same, empty config.
#[must_use]
pub fn oras(wasm: Vec<u8>) -> Image {
    let config = Blob::new(EMPTY_CONFIG, "{}");
    Image::assemble(config, vec![Blob::new(CONTENT_LAYER, wasm)]).edit_manifest(|manifest| {
        manifest["artifactType"] = json!(CONTENT_LAYER);
        manifest["config"]["data"] = json!("e30=");
        manifest["layers"][0]["annotations"] =
            json!({ "org.opencontainers.image.title": "app.wasm" });
        manifest["annotations"] =
            json!({ "org.opencontainers.image.created": "2026-01-01T00:00:00Z" });
    })
}
