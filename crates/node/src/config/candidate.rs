//! The ways in which our handlers can come into a configuration, the least intrusive first. Which of them works is not
//! decided by rules about versions, but by asking the host's own containerd (`proof`).
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Value};

use super::{ConfigError, Entry, block, parse, version};

/// The name of our file in a directory of drop-ins.
pub const DROP_IN: &str = "sampan.toml";
/// How such a file begins: one that does not is not ours.
const OURS: &str = "# written by sampan-node, which takes it away again itself\n";

/// How our handlers come in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file of our own in a directory that the configuration imports.
    DropIn,
    /// A block at the end of a file that belongs to others.
    Block,
}

/// One way: a file, what it is to hold, and what containerd would read then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// How.
    pub kind: Kind,
    /// The file of the host that is written.
    pub path: PathBuf,
    /// What it is to hold.
    pub bytes: Vec<u8>,
    /// What its parser is to be asked about beforehand: containerd's configuration as it would be, and a file that it
    /// would import besides.
    pub asked: (Option<Vec<u8>>, Option<Vec<u8>>),
}

/// Where our handlers may go: what is known of the node.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The configuration that containerd reads, without our block; `None` where there is no file.
    pub config: Option<&'a [u8]>,
    /// Its path on the host.
    pub config_path: &'a Path,
    /// A directory whose files the distribution merges itself.
    pub drop_in_dir: Option<&'a Path>,
    /// A file from which the distribution makes the configuration, with what it holds (or is to begin with).
    pub template: Option<(&'a Path, &'a [u8])>,
    /// The version of a configuration of containerd's own, where there is no file.
    pub newest: i64,
}

/// All ways that this place offers, the least intrusive first.
///
/// # Errors
/// When the configuration cannot be read: nothing is to be changed then.
pub fn candidates(place: &Place<'_>, entries: &[Entry]) -> Result<Vec<Candidate>, ConfigError> {
    let document = parse(place.config.unwrap_or_default())?;
    let version = match place.config {
        Some(_) => version(&document)?,
        None => place.newest,
    };
    let tables = |version: i64| -> String {
        let tables: Vec<String> = entries.iter().map(|entry| entry.tables(version)).collect();
        tables.join("")
    };
    let own = |version: i64| format!("{OURS}version = {version}\n{}", tables(version)).into_bytes();
    let drop_in = |dir: &Path| {
        let bytes = own(version);
        Candidate {
            kind: Kind::DropIn,
            path: dir.join(DROP_IN),
            asked: (place.config.map(<[u8]>::to_vec), Some(bytes.clone())),
            bytes,
        }
    };
    if let Some(dir) = place.drop_in_dir {
        return Ok(vec![drop_in(dir)]);
    }
    let mut all: Vec<Candidate> = imported(&document, place.config_path)
        .iter()
        .map(|dir| drop_in(dir))
        .collect();
    let fresh = format!("version = {version}\n").into_bytes();
    let edited = block::add(place.config.unwrap_or(&fresh), &tables(version))?;
    let (path, bytes) = match place.template {
        Some((path, template)) => (path, block::add(template, &tables(version))?),
        None => (place.config_path, edited.clone()),
    };
    all.push(Candidate {
        kind: Kind::Block,
        path: path.to_owned(),
        bytes,
        asked: (Some(edited), None),
    });
    Ok(all)
}

/// Files in which an earlier installation may have put our handlers: drop-ins and files with a block.
#[must_use]
pub fn haunts(place: &Place<'_>) -> Vec<(Kind, PathBuf)> {
    let document = parse(place.config.unwrap_or_default()).unwrap_or_default();
    let mut dirs = imported(&document, place.config_path);
    dirs.extend(place.drop_in_dir.map(Path::to_owned));
    let mut all: Vec<(Kind, PathBuf)> = dirs
        .into_iter()
        .map(|dir| (Kind::DropIn, dir.join(DROP_IN)))
        .collect();
    all.push((Kind::Block, place.config_path.to_owned()));
    all
}

/// Whether a drop-in was written by us.
#[must_use]
pub fn is_ours(drop_in: &[u8]) -> bool {
    drop_in.starts_with(OURS.as_bytes())
}

/// The directories of which a configuration imports every `*.toml`.
fn imported(document: &DocumentMut, config_path: &Path) -> Vec<PathBuf> {
    imports(document)
        .filter_map(|pattern| {
            let dir = pattern.strip_suffix("/*.toml")?;
            (!dir.contains(['*', '?', '['])).then(|| absolute(dir, config_path))
        })
        .collect()
}

fn imports(document: &DocumentMut) -> impl Iterator<Item = &str> {
    document
        .get("imports")
        .and_then(toml_edit::Item::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// containerd reads relative imports from the directory of the file that has them.
fn absolute(path: &str, config_path: &Path) -> PathBuf {
    config_path
        .parent()
        .unwrap_or(Path::new("/"))
        .join(path.trim_start_matches("./"))
}

/// The configuration as it would read from another directory: relative imports are made absolute, and `also` is
/// imported as if it lay in one of the directories. `instead` may name files that are to be imported instead of all of
/// a directory.
///
/// # Errors
/// When it is no TOML.
pub fn relocated(
    config: &[u8],
    config_path: &Path,
    also: Option<&Path>,
    instead: &dyn Fn(&Path) -> Option<Vec<PathBuf>>,
) -> Result<Vec<u8>, ConfigError> {
    let mut document = parse(config)?;
    let mut all = Vec::new();
    for path in imports(&document) {
        let path = absolute(path, config_path);
        let directory = path.ends_with("*.toml").then(|| path.parent()).flatten();
        match directory.and_then(instead) {
            Some(files) => all.extend(files),
            None => all.push(path),
        }
    }
    all.extend(also.map(Path::to_owned));
    if !all.is_empty() || document.contains_key("imports") {
        let list: Array = all
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        document["imports"] = toml_edit::value(list);
    }
    Ok(document.to_string().into_bytes())
}
