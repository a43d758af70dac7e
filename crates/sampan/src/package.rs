//! A program as an image: the formats that are in use (docs/reference.md, "Image formats"). The same program gives the
//! same bytes.

use std::collections::BTreeSet;

use clap::ValueEnum;
use engine::{Kind, Survey};
use image::{DOCUMENT_LIMIT, GUEST_LIMIT, digest_of};
use plan::Digest;
use serde_json::{Value, json};

use crate::failure::{self, Failure, Outcome};

/// What kind of image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// The CNCF's Wasm OCI artifact, whose config names the layer; for pods
    #[default]
    Cncf,
    /// An OCI image with a layer as runwasi's tool makes it; for pods and `ctr`
    BytecodeAlliance,
    /// An OCI image with a layer as wasm-to-oci and oras make it; for pods and `ctr`
    Content,
}

/// Media type of the manifests.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// When images say they were made, so that the same program is the same image (reproducible-builds.org,
/// "SOURCE_DATE_EPOCH", has a date of its own).
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image in memory.
pub(crate) struct Package {
    /// Config and layer.
    pub(crate) blobs: Vec<Blob>,
    pub(crate) manifest: Blob,
}

/// Bytes, and what they are.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Outcome<Self> {
        let digest = digest_of(&mut bytes.as_slice(), GUEST_LIMIT.max(DOCUMENT_LIMIT))
            .map_err(|error| Failure::of(failure::Kind::Refused, error))?;
        Ok(Self {
            media_type,
            digest,
            bytes,
        })
    }

    fn json(media_type: &'static str, value: &Value) -> Outcome<Self> {
        Self::new(media_type, value.to_string().into_bytes())
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.bytes.len(),
        })
    }
}

impl Package {
    /// An image with the program as its one layer. `survey` is what was found in it.
    pub(crate) fn new(program: &[u8], survey: &Survey, form: Form) -> Outcome<Self> {
        // Text is compiled where it is asked for by name; a layer is binary.
        let binary = wat::parse_bytes(program)
            .map_err(|error| Failure::of(failure::Kind::Refused, error))?
            .into_owned();
        let layer = Blob::new(
            match form {
                Form::Cncf => "application/wasm",
                Form::BytecodeAlliance => {
                    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
                }
                Form::Content => "application/vnd.wasm.content.layer.v1+wasm",
            },
            binary,
        )?;
        let config = match form {
            Form::Cncf => Blob::json("application/vnd.wasm.config.v0+json", &cncf(&layer, survey)),
            Form::BytecodeAlliance | Form::Content => Blob::json(
                "application/vnd.oci.image.config.v1+json",
                &image_config(&layer),
            ),
        }?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.descriptor(), "layers": [layer.descriptor()],
        });
        Ok(Self {
            manifest: Blob::json(MANIFEST, &manifest)?,
            blobs: vec![config, layer],
        })
    }
}

/// CNCF TAG Runtime, "Wasm OCI Artifact layout": `component` is for components alone.
fn cncf(layer: &Blob, survey: &Survey) -> Value {
    let component = survey.kind == Kind::Component;
    let mut config = json!({
        "created": CREATED,
        "architecture": "wasm",
        "os": if component { "wasip2" } else { "wasip1" },
        "layerDigests": [layer.digest.to_string()],
    });
    if component {
        let imports: BTreeSet<_> = survey.imports.iter().map(|import| &import.name).collect();
        let exports: BTreeSet<_> = survey.exports.iter().map(|export| &export.name).collect();
        config["component"] = json!({ "exports": exports, "imports": imports, "target": null });
    }
    config
}

fn image_config(layer: &Blob) -> Value {
    json!({
        "created": CREATED,
        "architecture": "wasm",
        "os": "wasi",
        // The label makes the config, and so the image's id, this program's alone; the entry point spares pods a command.
        "config": { "Entrypoint": ["/"], "Labels": { "dev.sampan.layer": layer.digest.to_string() } },
        // containerd counts only layers that it can unpack, and there is none.
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
}
