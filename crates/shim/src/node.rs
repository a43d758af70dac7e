//! The node's configuration file and what follows from it: the runner and its fingerprint.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use plan::{EngineSettings, NodeConfig};
use store::Store;

/// Where the node's administrator writes; the variable names another file (for several
/// containerds on one machine, and for tests).
const CONFIG: &str = "/etc/sampan/config.toml";
const CONFIG_VARIABLE: &str = "SAMPAN_CONFIG";

/// The node's configuration: as its file has it, and as it is understood.
pub(crate) struct Configuration {
    text: String,
    pub(crate) config: NodeConfig,
}

/// Reads the node's configuration; a missing file is an empty one, unless it was named.
pub(crate) fn configuration() -> anyhow::Result<Configuration> {
    let named = std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
    let path = named.as_deref().unwrap_or(Path::new(CONFIG));
    match fs::read_to_string(path) {
        Ok(text) => {
            let config = NodeConfig::of_file(&text, path);
            let config = config.with_context(|| path.display().to_string())?;
            Ok(Configuration { text, config })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok(Configuration {
                text: String::new(),
                config: NodeConfig::default(),
            })
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

impl Configuration {
    /// What the node's supervisor is made of: this program's file, and the configuration's text. Where either has changed,
    /// new pods get a supervisor that is made of the new ones; the old one ends with its last container.
    pub(crate) fn generation(&self) -> anyhow::Result<String> {
        let path = std::env::current_exe().context("find this program")?;
        // By the link: the file may have been replaced since.
        let meta = fs::metadata("/proc/self/exe").context("examine this program")?;
        Ok(format!(
            "{} {}\n{}",
            path.display(),
            identity(&meta),
            self.text
        ))
    }
}

/// What tells a file from one that replaces it: device, inode, size and change time.
fn identity(meta: &fs::Metadata) -> String {
    format!(
        "{:x}-{:x}-{:x}-{:x}.{:09}",
        meta.dev(),
        meta.ino(),
        meta.size(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

/// The runner of a container: as the runtime options say, else the node's configuration, else
/// `sampan-runner` beside this program.
pub(crate) fn runner(option: Option<&Path>, config: &NodeConfig) -> anyhow::Result<PathBuf> {
    if let Some(path) = option.or(config.runner.as_deref()) {
        if !path.is_absolute() {
            bail!("the runner `{}` is not an absolute path", path.display());
        }
        return Ok(path.to_owned());
    }
    let shim = std::env::current_exe().context("find this program")?;
    Ok(shim.with_file_name("sampan-runner"))
}

/// What the runner's engine calls itself with these settings; artifacts of another are not for it.
///
/// Asking costs an execution, so the answer is kept in the store under the identity of the
/// file: a replaced runner is asked again.
pub(crate) fn fingerprint(
    runner: &Path,
    settings: &EngineSettings,
    store: &Store,
) -> anyhow::Result<String> {
    let word = settings.word();
    let meta = fs::metadata(runner)
        .with_context(|| format!("the runner {} cannot be used", runner.display()))?;
    let note = format!("fingerprint-{}-{word}", identity(&meta));
    if let Some(known) = store.note(&note)?
        && is_fingerprint(&known)
    {
        return Ok(known);
    }
    let output = Command::new(runner)
        .args(["fingerprint", &word])
        .env_clear()
        .output()
        .with_context(|| format!("execute {} fingerprint", runner.display()))?;
    let fingerprint = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !is_fingerprint(&fingerprint) {
        bail!(
            "{} fingerprint: {}, it wrote `{fingerprint}`",
            runner.display(),
            output.status
        );
    }
    store.keep_note(&note, &fingerprint)?;
    Ok(fingerprint)
}

/// It becomes the name of a directory.
fn is_fingerprint(text: &str) -> bool {
    (8..=128).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b))
}
