//! The engine: wasmtime, behind a door that knows plans and nothing of containers.
//!
//! The way of a program: [`compile`] makes an artifact of guest bytes (once per node, in a
//! bounded process of its own); [`Program::load`] maps an artifact; [`Program::link`] finds what
//! it imports, what is to be called, and refuses what cannot run; [`Linked::run`] gives it its
//! grants and runs it to its exit code.
//!
//! `unsafe` is in one place: [`Program::load`], which trusts the artifact.
#![deny(unsafe_code)]

mod command;
mod compile;
mod config;
mod coredump;
mod counts;
mod debug;
mod ending;
mod entry;
mod fingerprint;
mod grants;
mod hollow;
mod host;
mod http;
mod imports;
mod limits;
mod link;
mod names;
mod network;
mod program;
mod proposals;
mod state;
mod stdio;
mod survey;
mod trace;

pub use compile::{CompileError, Kind, compile};
pub use counts::Counts;
pub use debug::debug_bytes;
pub use ending::Ending;
pub use fingerprint::fingerprint;
pub use host::Host;
pub use limits::NewerLimit;
pub use link::{LinkError, Linked};
pub use program::{LoadError, Program};
pub use survey::{Answer, Export, Import, Role, Runs, Survey, survey};
pub use trace::{SpanSink, Tracer};
