//! `cargo xtask image`: the node program's image, as an OCI archive. It is written here, so no Docker is needed, and the
//! same binaries make the same bytes.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::build::{NODE, Processor, RUNTIME, checkout};

/// Under which name it is found where it is loaded; the chart's default.
pub(crate) const REFERENCE: &str =
    concat!("ghcr.io/sampan-dev/sampan-node:", env!("CARGO_PKG_VERSION"));

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Packs the binaries that lie in `from` and writes the archive beside them.
pub(crate) fn pack(processor: Processor, from: &Path, reference: &str) -> Result<PathBuf> {
    let read = |name: &str| {
        let path = from.join(name);
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    };
    // What `helm test` runs.
    let hello = wat::parse_file(checkout().join("test/guests/wat/hello.wat"))
        .context("translate the guest hello")?;
    let mut files = vec![("hello.wasm".to_owned(), 0o644, hello)];
    for name in RUNTIME {
        files.push((format!("opt/sampan/payload/{name}"), 0o755, read(name)?));
    }
    files.push((NODE.to_owned(), 0o755, read(NODE)?));
    let path = from.join("sampan-node.tar");
    let temporary = from.join("sampan-node.tar.new");
    fs::write(
        &temporary,
        archive(processor.oci(), reference, layer(&files)?)?,
    )
    .and_then(|()| fs::rename(&temporary, &path))
    .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Files with their modes, and the directory where the host is mounted, as one layer.
fn layer(files: &[(String, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for directory in ["host/", "opt/", "opt/sampan/", "opt/sampan/payload/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, directory, std::io::empty())
            .with_context(|| format!("pack {directory}"))?;
    }
    for (path, mode, bytes) in files {
        append(&mut tar, path, *mode, bytes)?;
    }
    tar.into_inner().context("finish the layer")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    // Owner and time stay 0.
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("pack {path}"))
}

/// An image of one layer, as an OCI archive.
fn archive(architecture: &str, reference: &str, layer: Vec<u8>) -> Result<Vec<u8>> {
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/sampan-node"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "sampan-node",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "cargo xtask image" }],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut top = descriptor(MANIFEST, &manifest);
    top["platform"] = json!({ "architecture": architecture, "os": "linux" });
    // The first is read by containerd, the second by Docker and skopeo.
    top["annotations"] = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [top] });

    let mut tar = tar::Builder::new(Vec::new());
    append(
        &mut tar,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    append(&mut tar, "index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [manifest, config, layer] {
        let path = format!("blobs/{}", digest(&blob).replace(':', "/"));
        append(&mut tar, &path, 0o644, &blob)?;
    }
    tar.into_inner().context("finish the archive")
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn unpacked(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().expect("a tar file") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            files.insert(path, content);
        }
        files
    }

    #[test]
    fn the_archive_leads_to_the_layer() {
        let made = || {
            let layer = layer(&[(NODE.to_owned(), 0o755, b"program".to_vec())]).expect("a layer");
            archive("amd64", REFERENCE, layer).expect("an archive")
        };
        assert_eq!(made(), made(), "the same content is the same bytes");
        let files = unpacked(&made());
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
            assert_eq!(descriptor["size"], bytes.len());
            bytes
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let index = json(&files["index.json"]);
        let manifest = json(blob(&index["manifests"][0]));
        let config = json(blob(&manifest["config"]));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(layer));
        assert_eq!(unpacked(layer)["sampan-node"], b"program");
    }

    #[test]
    fn the_chart_looks_for_this_image() {
        let values =
            fs::read_to_string(checkout().join("charts/sampan/values.yaml")).expect("values");
        let (repository, tag) = REFERENCE.rsplit_once(':').expect("a tag");
        assert!(values.contains(&format!("repository: {repository}\n")));
        let chart = fs::read_to_string(checkout().join("charts/sampan/Chart.yaml")).expect("chart");
        let version = format!("appVersion: {tag}\n");
        assert!(chart.contains(&version), "the chart is of another version");
    }
}
