use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::{Layers, Policy, Settings};

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
    /// `[defaults]`: what holds for knobs ([`crate::KNOBS`]) that neither the pod nor its RuntimeClass sets.
    pub defaults: Settings,
    /// `[ceilings]`: what neither of them can exceed.
    pub ceilings: Settings,
    /// The file that all of this comes from, for messages.
    #[serde(skip)]
    pub file: PathBuf,
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
            defaults: Settings::default(),
            ceilings: Settings::default(),
            file: FILE.into(),
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

/// Where the file is if nobody says otherwise.
const FILE: &str = "/etc/sampan/config.toml";

/// What is wrong with the node's configuration; one line.
#[derive(Debug, thiserror::Error)]
pub enum NodeConfigError {
    /// The text is no TOML, or has an unknown key or a wrong type; names the key and the line.
    #[error("{}", .0.to_string().trim_end().replace('\n', " "))]
    Text(#[from] toml::de::Error),
    /// Settings that do not exist, are no values, or contradict each other; all of them.
    #[error("{0}")]
    Settings(String),
}

impl NodeConfig {
    /// [`NodeConfig::of_file`] of the usual file.
    ///
    /// # Errors
    /// [`NodeConfigError`].
    pub fn parse(text: &str) -> Result<Self, NodeConfigError> {
        Self::of_file(text, Path::new(FILE))
    }

    /// Reads the text of the file; its path is for messages.
    ///
    /// # Errors
    /// [`NodeConfigError`].
    pub fn of_file(text: &str, file: &Path) -> Result<Self, NodeConfigError> {
        let mut config: Self = toml::from_str(text)?;
        config.file = file.to_owned();
        // What is wrong in the file is said when it is read, and not to the first pod that it concerns.
        let none = Settings::default();
        let layers = Layers {
            pod: &none,
            class: &none,
            node: &config,
        };
        Policy::resolve(layers).map_err(|faults| {
            let lines: Vec<_> = faults
                .iter()
                .map(|(place, reason)| format!("{place}: {reason}"))
                .collect();
            NodeConfigError::Settings(lines.join("; "))
        })?;
        Ok(config)
    }

    /// How messages call a key of one of the two tables of settings.
    pub(crate) fn place(&self, table: &str, name: &str) -> String {
        format!("[{table}] {name} in {}", self.file.display())
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

    #[test]
    fn wrong_settings_are_named_all_at_once() {
        let text = "[defaults]\nnetwork = 'some'\nfuel = 0\nrootfs = 'rw'\n[ceilings]\nrootfs = 'ro'\naccess-log = 'off'\nno-such = 1\n";
        let error = NodeConfig::parse(text).expect_err("wrong").to_string();
        for part in [
            "[defaults] network in /etc/sampan/config.toml: `some` is not all, listen or none",
            "[defaults] fuel",
            "[defaults] rootfs in /etc/sampan/config.toml: `rw` is beyond the node's ceiling `ro`",
            "[ceilings] access-log in /etc/sampan/config.toml: has no ceiling",
            "[ceilings] no-such in /etc/sampan/config.toml: does not exist",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let error = NodeConfig::parse("[defaults]\nnetwork = 1.5\n")
            .expect_err("no setting")
            .to_string();
        assert!(error.contains("network"), "{error}");
    }
}
