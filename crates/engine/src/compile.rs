use std::borrow::Cow;
use std::io::Write;

use plan::EngineSettings;
use wasmparser::{Parser, Payload, Validator};
use wasmtime::Engine;

use crate::config::{self, Style};
use crate::entry;

/// What guest bytes, or an artifact made of them, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// Why guest bytes did not become an artifact. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Native code that somebody else compiled.
    #[error(
        "the program is a precompiled wasmtime artifact (.cwasm): native code is never taken from an image; ship the .wasm that it was made of"
    )]
    Precompiled,
    /// A native program.
    #[error("the program is a native ELF binary, not WebAssembly")]
    Native,
    /// Nothing that we know.
    #[error(
        "the program is not WebAssembly: it starts with {start}, a module or component starts with \"\\0asm\""
    )]
    NotWasm {
        /// The first bytes, readable.
        start: String,
    },
    /// It ends too early.
    #[error("the program is truncated: {reason}")]
    Truncated {
        /// Where, and what was expected.
        reason: String,
    },
    /// It is text, with a mistake.
    #[error("the program is no valid WebAssembly text: {reason}")]
    Text {
        /// Line, column, mistake.
        reason: String,
    },
    /// It breaks a rule of WebAssembly or needs a feature that the engine does not have.
    #[error("the program is not valid: {reason}")]
    Invalid {
        /// The rule and the place.
        reason: String,
    },
    /// It is valid, but the compiler does not take it.
    #[error("cannot compile the program: {reason}")]
    Refused {
        /// What wasmtime said.
        reason: String,
    },
    /// The engine could not be made.
    #[error("cannot start the compiler: {reason}")]
    Engine {
        /// What wasmtime said.
        reason: String,
    },
    /// The artifact could not be written.
    #[error("cannot write the artifact")]
    Write(#[source] std::io::Error),
}

/// Compiles a module or a component, binary or text, into an artifact that [`crate::Program`]
/// can map.
///
/// Validates first, because that takes a hundredth of the time that compiling takes to find the
/// same. Bounds neither time nor memory: call it in a process that is bounded from outside.
///
/// # Errors
/// [`CompileError`], one line each; nothing has been written then, except with
/// [`CompileError::Write`].
pub fn compile(
    source: &[u8],
    settings: &EngineSettings,
    out: &mut impl Write,
) -> Result<Kind, CompileError> {
    let source = binary(source)?;
    let engine =
        config::for_compiling(settings, style(&source)).map_err(|error| CompileError::Engine {
            reason: one_line(&error),
        })?;
    let kind = validate(&engine, &source)?;
    let artifact = match kind {
        Kind::Module => engine.precompile_module(&source),
        Kind::Component => engine.precompile_component(&source),
    }
    .map_err(|error| CompileError::Refused {
        reason: one_line(&error),
    })?;
    out.write_all(&artifact).map_err(CompileError::Write)?;
    Ok(kind)
}

/// How the program is interrupted: one that only serves HTTP shares its process with itself.
///
/// What cannot be read is for validation to say.
pub(crate) fn style(source: &[u8]) -> Style {
    if !Parser::is_component(source) {
        return Style::Command;
    }
    let mut depth = 0_u32;
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(source) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(section)) if depth == 0 => {
                exports.extend(section.into_iter().flatten().map(|export| export.name.name));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if entry::serves(&exports) {
        Style::Server
    } else {
        Style::Command
    }
}

/// The binary form, or why there is none.
pub(crate) fn binary(source: &[u8]) -> Result<Cow<'_, [u8]>, CompileError> {
    if source.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(source));
    }
    if source.starts_with(b"\x7fELF") {
        // wasmtime marks its artifacts in the identification bytes: OS ABI 200. Nothing that
        // looks like one is parsed further.
        return Err(match source.get(7) {
            Some(200) => CompileError::Precompiled,
            _ => CompileError::Native,
        });
    }
    if is_text(source) {
        return wat::parse_bytes(source).map_err(|error| {
            // The text quotes the line and points at the column; we keep mistake and place.
            let text = error.to_string();
            let mut lines = text.lines();
            let mistake = lines.next().unwrap_or_default();
            let place = lines
                .next()
                .unwrap_or_default()
                .trim_start_matches([' ', '-', '>']);
            CompileError::Text {
                reason: format!("{mistake} at {place}"),
            }
        });
    }
    if b"\0asm".starts_with(source) && !source.is_empty() {
        return Err(CompileError::Truncated {
            reason: format!("{} bytes", source.len()),
        });
    }
    Err(CompileError::NotWasm {
        start: readable(source),
    })
}

/// Whether the first thing in it, after white space, is a parenthesis or a comment of the text
/// format.
fn is_text(source: &[u8]) -> bool {
    let start = source.trim_ascii_start();
    (start.starts_with(b"(") || start.starts_with(b";;")) && std::str::from_utf8(source).is_ok()
}

fn readable(source: &[u8]) -> String {
    if source.is_empty() {
        return "nothing (the file is empty)".to_owned();
    }
    format!("\"{}\"", source[..source.len().min(8)].escape_ascii())
}

pub(crate) fn validate(engine: &Engine, source: &[u8]) -> Result<Kind, CompileError> {
    let features = engine.get_wasm_features();
    Validator::new_with_features(features)
        .validate_all(source)
        .map_err(|error| {
            // wasmparser says so much by a hint for readers of growing files.
            let truncated = error.message().starts_with("unexpected end");
            let reason = format!("{} (at offset {:#x})", error.message(), error.offset());
            if truncated {
                CompileError::Truncated { reason }
            } else {
                CompileError::Invalid { reason }
            }
        })?;
    Ok(if Parser::is_component(source) {
        Kind::Component
    } else {
        Kind::Module
    })
}

/// The chain of an error in one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
