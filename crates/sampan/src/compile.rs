//! `sampan compile`: native code before anybody asks for it.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use store::Store;

use crate::arguments::Compile;
use crate::failure::{Failure, Kind, Outcome};
use crate::inspect::alone;
use crate::node::{self, Chosen};
use crate::output::{Screen, Text, progress, size, strong};
use crate::run::kept;
use crate::source::Source;

/// What was compiled.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Compiled {
    name: String,
    /// Of the guest bytes.
    digest: String,
    /// The engine that takes the result.
    engine: String,
    /// The store's directory, or the file.
    place: String,
    /// Bytes of native code and what belongs to it.
    size: u64,
    /// Whether the store had it already.
    found: bool,
    seconds: f64,
}

pub(crate) fn compile(arguments: &Compile, screen: &mut Screen<'_>) -> Outcome<u8> {
    let named = &arguments.program;
    let source = Source::open(&named.name, &named.registry)?;
    let settings = &arguments.settings;
    // What goes into the node's store is compiled as the node's containers are.
    let of_node = settings.node_config.is_none()
        && arguments.to.is_none()
        && rustix::process::geteuid().is_root()
        && Path::new(node::CONFIG).exists();
    let node_config = if of_node {
        Some(Path::new(node::CONFIG))
    } else {
        settings.node_config.as_deref()
    };
    let guest = alone(named, settings, node_config, &source)?;
    let program = source.program(&guest.entry, &guest.cwd, &guest.env)?;
    let begun = Instant::now();
    let (place, size, found) = match &arguments.to {
        Some(file) => {
            let mut native = Vec::new();
            progress(&format!("compiling {}", program.name));
            engine::compile(&program.bytes, &guest.engine, &mut native)
                .map_err(|error| kept::refused(&program, error))?;
            write(file, &native).map_err(|error| {
                Failure::at(
                    Kind::System,
                    format!("cannot write {}", file.display()),
                    error,
                )
            })?;
            (file.clone(), native.len() as u64, false)
        }
        None => {
            let chosen = Chosen::of(arguments.store.as_deref(), node_config)?;
            let store = Store::open(&chosen.path, chosen.limits).map_err(node::failed)?;
            let (artifact, made) = kept::compiled(&store, &program, &guest.engine)?;
            (chosen.path, artifact.size(), !made)
        }
    };
    let compiled = Compiled {
        name: program.name,
        digest: program.digest.to_string(),
        engine: engine::fingerprint(&guest.engine),
        place: place.display().to_string(),
        size,
        found,
        seconds: begun.elapsed().as_secs_f64(),
    };
    screen.show(&compiled, text(&compiled))?;
    Ok(0)
}

/// Whole or not at all.
fn write(file: &Path, native: &[u8]) -> std::io::Result<()> {
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(dir)?;
    part.write_all(native)?;
    part.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    part.persist(file).map_err(|error| error.error)?;
    Ok(())
}

fn text(compiled: &Compiled) -> Text {
    let mut text = Text::default();
    text.line(strong(&compiled.name));
    text.row("digest", &compiled.digest);
    text.row("engine", &compiled.engine);
    let how = if compiled.found {
        "was there already".to_owned()
    } else {
        format!("compiled in {:.1} s", compiled.seconds)
    };
    text.row("result", format!("{}, {how}", size(compiled.size)));
    text.row("in", &compiled.place);
    text
}
