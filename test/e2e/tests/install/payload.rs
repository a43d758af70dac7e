//! The node program's image, and what is in it.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use e2e_tests::skip;
use harness::image::{self, Image, Rootfs};
use serde_json::Value;

/// The image that `cargo xtask image` has made.
pub(crate) fn shipped() -> Result<Image> {
    let Some(path) = std::env::var_os("SAMPAN_NODE_IMAGE") else {
        return Err(skip(
            "SAMPAN_NODE_IMAGE names no archive of the node program's image; `cargo xtask e2e` makes one",
        ));
    };
    let archive = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    image::read_archive(&archive)
}

/// The same with another shim: one byte behind its end, which nothing reads, makes it another version.
pub(crate) fn newer(image: &Image) -> Result<Image> {
    const SHIM: &str = "opt/sampan/payload/containerd-shim-sampan-v1";
    let lowest = image.layers.first().context("an image has a layer")?;
    let mut shim = image::read_file(lowest, SHIM)?;
    shim.push(0);
    let above = Rootfs::new().file(SHIM, shim).build()?;
    let mut config: Value = serde_json::from_slice(&image.config.bytes)?;
    let mut layers = image.layers.clone();
    layers.extend(above.layers);
    config["rootfs"]["diff_ids"] = layers.iter().map(image::Blob::digest).collect();
    Ok(Image::assemble(
        image::Blob::json(image::IMAGE_CONFIG, &config),
        layers,
    ))
}

/// Unpacks the program and what it installs into a directory: `sampan-node` and `payload`.
pub(crate) fn unpack(image: &Image, into: &Path) -> Result<()> {
    let lowest = image.layers.first().context("an image has a layer")?;
    fs::create_dir_all(into.join("payload"))
        .with_context(|| format!("create {}", into.display()))?;
    for (from, to) in [
        ("sampan-node", "sampan-node"),
        (
            "opt/sampan/payload/containerd-shim-sampan-v1",
            "payload/containerd-shim-sampan-v1",
        ),
        ("opt/sampan/payload/sampan-runner", "payload/sampan-runner"),
    ] {
        let path = into.join(to);
        fs::write(&path, image::read_file(lowest, from)?)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
