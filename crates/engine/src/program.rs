use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use plan::GuestPlan;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::compile::{Kind, one_line};
use crate::config::{self, Style};

/// An artifact, mapped and ready to be linked.
pub struct Program {
    pub(crate) engine: Engine,
    pub(crate) code: Code,
    pub(crate) style: Style,
    /// The descriptor that it was mapped from. Whoever lent it may hold a lock by it that keeps
    /// the artifact from being evicted; the lock lives as long as this.
    pub(crate) artifact: File,
}

pub(crate) enum Code {
    Module(Module),
    Component(Component),
}

/// Why an artifact could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The descriptor could not be looked at.
    #[error("cannot read the artifact")]
    Read(#[source] std::io::Error),
    /// Somebody could change the code while it runs.
    #[error(
        "the artifact is not a read-only regular file (mode {mode:o}): it does not come from the artifact store"
    )]
    Writable {
        /// Its type and permissions as `stat` has them.
        mode: u32,
    },
    /// It is no artifact.
    #[error("the file is not an artifact")]
    NotAnArtifact,
    /// The engine could not be made.
    #[error("cannot start the engine: {reason}")]
    Engine {
        /// What wasmtime said.
        reason: String,
    },
    /// Another engine, another version or another CPU made it.
    #[error("the artifact does not fit this engine: {reason}")]
    Incompatible {
        /// What wasmtime said.
        reason: String,
    },
}

impl Program {
    /// Maps an artifact of [`crate::compile`]; its pages are shared with every process that maps
    /// the same file.
    ///
    /// The file becomes native code of this process: hand in nothing but what the artifact store
    /// gave. Regular type and the absence of every write permission are checked here, owner and
    /// place by the store. A component is opened through `/proc/self/fd`, so `/proc` has to be
    /// there.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(file: &File, guest: &GuestPlan) -> Result<Self, LoadError> {
        let mode = file.metadata().map_err(LoadError::Read)?.mode();
        if mode & 0o170_000 != 0o100_000 || mode & 0o222 != 0 {
            return Err(LoadError::Writable { mode });
        }
        let kind = kind(file)?;
        let artifact = file.try_clone().map_err(LoadError::Read)?;
        // How it was compiled follows from what it exports, which is known when it is mapped. wasmtime compares the
        // settings before anything else, so that asking twice costs a server 0.1 ms and a command nothing.
        let styles: &[Style] = match kind {
            Kind::Module => &[Style::Command],
            Kind::Component => &[Style::Command, Style::Server],
        };
        let mut refused = None;
        for style in styles.iter().copied() {
            let engine = config::for_running(guest, style).map_err(|error| LoadError::Engine {
                reason: one_line(&error),
            })?;
            match map(&engine, kind, &artifact) {
                Ok(code) => {
                    return Ok(Self {
                        engine,
                        code,
                        style,
                        artifact,
                    });
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(LoadError::Incompatible {
            reason: refused.map(|error| one_line(&error)).unwrap_or_default(),
        })
    }
}

#[expect(unsafe_code, reason = "the one place where native code is trusted")]
pub(crate) fn map(engine: &Engine, kind: Kind, artifact: &File) -> wasmtime::Result<Code> {
    Ok(match kind {
        Kind::Module => {
            let file = artifact.try_clone()?;
            // SAFETY: wasmtime asks for contents that its own compiler made and for a file that
            // does not change while mapped. The artifact store holds files that `compile` made,
            // in a directory of root's, written once under another name, without any write
            // permission (checked by `load`), and gives out descriptors to nothing else.
            Code::Module(unsafe { Module::deserialize_open_file(engine, file) }?)
        }
        Kind::Component => {
            let path = format!("/proc/self/fd/{}", artifact.as_raw_fd());
            // SAFETY: as above; the path is the same open file, not a name that could be moved.
            Code::Component(unsafe { Component::deserialize_file(engine, path) }?)
        }
    })
}

/// Reads the kind from the ELF header alone: 64 bytes, of which the identification (bytes 0 to
/// 15) and the flags (48 to 51) tell.
fn kind(file: &File) -> Result<Kind, LoadError> {
    /// `EF_WASMTIME_MODULE` and `EF_WASMTIME_COMPONENT` of wasmtime-environ's `obj.rs`.
    const MODULE: u32 = 1;
    const COMPONENT: u32 = 2;
    /// `ELFOSABI_WASMTIME`, likewise.
    const ABI: u8 = 200;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => LoadError::NotAnArtifact,
            _ => LoadError::Read(error),
        })?;
    let flags = u32::from_le_bytes([header[48], header[49], header[50], header[51]]);
    if !header.starts_with(b"\x7fELF") || header[7] != ABI {
        return Err(LoadError::NotAnArtifact);
    }
    match flags {
        MODULE => Ok(Kind::Module),
        COMPONENT => Ok(Kind::Component),
        _ => Err(LoadError::NotAnArtifact),
    }
}
