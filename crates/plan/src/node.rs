use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// `/etc/sampan/config.toml`: what the node's administrator decides. Every key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct NodeConfig {
    /// The engine binary; default: `sampan-runner` beside the shim.
    pub runner: Option<PathBuf>,
    /// Where containers keep what `delete` needs (lost at reboot); default `/run/sampan`.
    pub run: PathBuf,
    /// Compiled programs.
    pub store: StoreConfig,
    /// How much a compilation may use.
    pub compile: CompileConfig,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StoreConfig {
    /// Its directory, which only root may write; default `/var/lib/sampan`.
    pub path: PathBuf,
    /// Bytes of artifacts that are kept; older ones that nobody runs go first. Default 10 GiB.
    pub max_bytes: u64,
}

/// `[compile]`: compiling is done in a helper process with bounds, because a denial of service
/// by compilation is the host's to prevent (wasmtime, "What is considered a security issue").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct CompileConfig {
    /// Bytes of address space of the helper; default 8 GiB (pandoc, 56 MB, needs 7).
    pub max_memory: u64,
    /// Seconds on the clock; default 600.
    pub max_seconds: u64,
}

impl CompileConfig {
    /// `max-seconds` as a duration.
    #[must_use]
    pub const fn max_time(&self) -> Duration {
        Duration::from_secs(self.max_seconds)
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            runner: None,
            run: "/run/sampan".into(),
            store: StoreConfig::default(),
            compile: CompileConfig::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: "/var/lib/sampan".into(),
            max_bytes: 10 << 30,
        }
    }
}

impl Default for CompileConfig {
    fn default() -> Self {
        Self {
            max_memory: 8 << 30,
            max_seconds: 600,
        }
    }
}

/// What is wrong with the node's configuration; names the key and the line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.to_string().trim_end().replace('\n', " "))]
pub struct NodeConfigError(#[from] toml::de::Error);

impl NodeConfig {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// [`NodeConfigError`] where the text is no TOML or has an unknown key or a wrong type.
    pub fn parse(text: &str) -> Result<Self, NodeConfigError> {
        Ok(toml::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_keys_override() {
        assert_eq!(NodeConfig::parse("").expect("empty"), NodeConfig::default());
        let config =
            NodeConfig::parse("runner = '/opt/r'\n[compile]\nmax-seconds = 5\n").expect("valid");
        assert_eq!(config.runner, Some("/opt/r".into()));
        assert_eq!(config.compile.max_time(), Duration::from_secs(5));
        assert_eq!(
            config.compile.max_memory,
            CompileConfig::default().max_memory
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named() {
        for (text, name) in [
            ("[store]\nmaxbytes = 1", "maxbytes"),
            ("[compile]\nmax-seconds = 'x'", "max-seconds"),
        ] {
            let error = NodeConfig::parse(text).expect_err("wrong").to_string();
            assert!(error.contains(name) && !error.contains('\n'), "{error}");
        }
    }
}
