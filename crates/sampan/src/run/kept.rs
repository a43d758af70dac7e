//! Compiled programs, made once and kept: of this user, as a node keeps its own (`store`).

use std::fs::File;
use std::path::{Path, PathBuf};

use engine::CompileError;
use plan::coredump::MOST_BYTES;
use plan::{CoreDump, EngineSettings, GuestPlan};
use store::{Artifact, Claim, Limits, Store};

use crate::failure::{Failure, Kind, Outcome};
use crate::node;
use crate::output::progress;
use crate::source::Program;

/// Compiled programs that are kept for this user.
pub(crate) const LIMITS: Limits = Limits { max_bytes: 2 << 30 };

/// The directory that is this user's alone: `$XDG_CACHE_HOME/sampan/cli`, else `~/.cache/sampan/cli`.
pub(super) fn place() -> Outcome<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("sampan/cli")).ok_or_else(|| {
        Failure::new(
            Kind::System,
            "neither XDG_CACHE_HOME nor HOME says where compiled programs can be kept",
        )
    })
}

/// Where this user's compiled programs are.
pub(crate) fn store_place() -> Outcome<PathBuf> {
    Ok(place()?.join("store"))
}

/// The directory of this machine that is to keep core dumps.
pub(super) fn core_dump(dir: &Path, guest: &GuestPlan) -> Outcome<CoreDump> {
    let attempt = format!("--coredump: {}", dir.display());
    let real = dir
        .canonicalize()
        .map_err(|error| Failure::at(Kind::NotFound, &attempt, error))?;
    if !real.is_dir() {
        return Err(Failure::new(
            Kind::Wrong,
            format!("{attempt} is not a directory"),
        ));
    }
    let program = Path::new(&guest.entry.path).file_stem();
    let name = program.and_then(|name| name.to_str()).unwrap_or("run");
    Ok(CoreDump {
        dir: dir.display().to_string(),
        source: Some(real),
        name: name.to_owned(),
        max_bytes: MOST_BYTES,
    })
}

/// The program, compiled; now if it was not before. Without the bounds on memory and time that a node sets.
pub(super) fn artifact(program: &Program, settings: &EngineSettings) -> Outcome<File> {
    let store = Store::open(&store_place()?, LIMITS).map_err(node::failed)?;
    let (artifact, _) = compiled(&store, program, settings)?;
    Ok(File::from(artifact.into_descriptor()))
}

/// The program's artifact in a store, and whether it was made now.
pub(crate) fn compiled(
    store: &Store,
    program: &Program,
    settings: &EngineSettings,
) -> Outcome<(Artifact, bool)> {
    let claim = store
        .claim(&program.digest, &engine::fingerprint(settings))
        .map_err(node::failed)?;
    match claim {
        Claim::Hit(artifact) => Ok((artifact, false)),
        Claim::Make(slot) => {
            progress(&format!("compiling {}", program.name));
            engine::compile(&program.bytes, settings, &mut slot.file())
                .map_err(|error| refused(program, error))?;
            Ok((slot.publish().map_err(node::failed)?, true))
        }
    }
}

/// Why a program was not compiled.
pub(crate) fn refused(program: &Program, error: CompileError) -> Failure {
    let kind = match error {
        CompileError::Write(_) | CompileError::Engine { .. } => Kind::System,
        _ => Kind::Refused,
    };
    Failure::at(kind, &program.name, error)
}
