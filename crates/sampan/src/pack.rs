//! `sampan pack` and `sampan push`: a program becomes an image, in a directory or in a registry.

use std::path::Path;

use engine::survey;
use plan::GuestPlan;
use serde::Serialize;
use serde_json::json;

use crate::arguments::{Pack, Push, Registry};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{Screen, Text, harmless, size, strong};
use crate::package::{Form, MANIFEST, Package};
use crate::pod::{Described, Given};
use crate::source::{self, Source};

/// What was made.
#[derive(Debug, Serialize)]
struct Made<'a> {
    /// Directory or name.
    place: &'a str,
    /// Of the manifest.
    digest: String,
    /// Of the config: CRI's image id.
    id: String,
    layer: String,
    /// Bytes of the layer.
    size: usize,
}

/// Writes an OCI image layout.
pub(crate) fn pack(arguments: &Pack, screen: &mut Screen<'_>) -> Outcome<u8> {
    let package = package(&arguments.program, arguments.form, screen)?;
    let place = arguments.to.display().to_string();
    layout(&package, &arguments.to)
        .map_err(|error| Failure::at(Kind::System, format!("cannot write {place}"), error))?;
    show(&package, &place, screen)
}

/// Sends an image to a registry.
pub(crate) fn push(arguments: &Push, screen: &mut Screen<'_>) -> Outcome<u8> {
    let package = package(&arguments.program, arguments.form, screen)?;
    source::push(&arguments.name, &arguments.registry, &package)?;
    show(&package, &arguments.name, screen)
}

fn package(program: &str, form: Form, screen: &mut Screen<'_>) -> Outcome<Package> {
    let registry = Registry { plain_http: false };
    let Source::File { name, bytes } = Source::open(program, &registry)? else {
        return Err(Failure::new(
            Kind::Wrong,
            format!(
                "{program} is an image already: a program is wanted, as a file or from standard input"
            ),
        ));
    };
    let survey =
        survey(&bytes, &plan()?).map_err(|error| Failure::at(Kind::Refused, &name, error))?;
    if let Err(error) = &survey.runs {
        // Somebody else's host may run it, so it is packed; whoever did not know it does now.
        let error = harmless(&error.to_string());
        screen.tell(&format!(
            "sampan: {name}: packed, but Sampan would refuse it: {error}"
        ));
    }
    Package::new(&bytes, &survey, form)
}

/// The plan of a pod that says nothing.
fn plan() -> Outcome<GuestPlan> {
    let described = Described {
        name: "pack".to_owned(),
        args: vec!["/".to_owned()],
        ..Described::default()
    };
    let plan = described.plan(&Given::default())?;
    let plan = plan.map_err(|error| Failure::of(Kind::System, error))?;
    plan.guest
        .ok_or_else(|| Failure::new(Kind::System, "a container has no guest"))
}

/// OCI image-spec, "Image Layout". A directory that is one already gets the new image in place of its own.
fn layout(package: &Package, dir: &Path) -> std::io::Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    for blob in package.blobs.iter().chain([&package.manifest]) {
        std::fs::write(blobs.join(blob.digest.hex()), &blob.bytes)?;
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [package.manifest.descriptor()],
    });
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    std::fs::write(dir.join("index.json"), index.to_string())
}

fn show(package: &Package, place: &str, screen: &mut Screen<'_>) -> Outcome<u8> {
    let [config, layer] = package.blobs.as_slice() else {
        return Err(Failure::new(
            Kind::System,
            "an image has a config and a layer",
        ));
    };
    let made = Made {
        place,
        digest: package.manifest.digest.to_string(),
        id: config.digest.to_string(),
        layer: layer.digest.to_string(),
        size: layer.bytes.len(),
    };
    let mut text = Text::default();
    text.line(strong(place));
    text.row("manifest", format!("{} {MANIFEST}", made.digest));
    text.row("image id", format!("{} {}", made.id, config.media_type));
    text.row(
        "layer",
        format!(
            "{} {}, {}",
            made.layer,
            layer.media_type,
            size(made.size as u64)
        ),
    );
    screen.show(&made, text)?;
    Ok(0)
}
