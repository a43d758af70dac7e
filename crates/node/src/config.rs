//! containerd's configuration: which file is to hold our handlers, what it is to say, and the proof that it says
//! nothing else.
mod block;
mod candidate;
mod entry;
mod proof;

pub use block::{holds, remove};
pub use candidate::{Candidate, DROP_IN, Kind, Place, candidates, haunts, is_ours, relocated};
pub use entry::{Entry, HANDLERS, Scope, lies_in, plugin};
pub use proof::{Effective, free, prove};

/// What a configuration cannot be read for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No UTF-8.
    #[error("the configuration is not UTF-8")]
    NotUtf8,
    /// No TOML.
    #[error("parse the configuration: {}", .0.to_string().trim_end().replace('\n', " "))]
    Syntax(#[from] toml_edit::TomlError),
    /// A version that we do not know.
    #[error("the configuration has version {0}; known are 1 to 4")]
    Version(i64),
    /// Our block lies in it, but not as we wrote it.
    #[error("the configuration has the line `{0}` without its end: remove by hand what follows it")]
    Torn(String),
}

/// Reads a configuration file's text.
///
/// # Errors
/// When it is no TOML.
pub fn parse(bytes: &[u8]) -> Result<toml_edit::DocumentMut, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ConfigError::NotUtf8)?;
    Ok(text.parse()?)
}

/// Which version a file has; one that does not say is of version 1.
///
/// # Errors
/// When we do not know it.
pub fn version(document: &toml_edit::DocumentMut) -> Result<i64, ConfigError> {
    let version = document
        .get("version")
        .and_then(toml_edit::Item::as_integer)
        .unwrap_or(1);
    if (1..=4).contains(&version) {
        Ok(version)
    } else {
        Err(ConfigError::Version(version))
    }
}

#[cfg(test)]
mod tests;
