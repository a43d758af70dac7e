use std::io::Read;
use std::path::{Path, PathBuf};

use plan::{Preopen, in_process};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

use crate::state::ComponentState;

/// Bytes of a value; a ConfigMap has a million in all.
const LONGEST: u64 = 1 << 20;

/// The values of `wasi:config`.
pub(crate) enum Configuration {
    /// Names and values of the environment.
    Environment(Vec<(String, String)>),
    /// The files of a directory, read anew every time: a mounted ConfigMap changes while the pod runs.
    Directory(PathBuf),
    /// Of a directory that the guest does not see.
    Hidden(PathBuf),
}

/// `error` of `wasi:config`.
#[derive(Debug, Clone, ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "upstream")]
    #[expect(
        dead_code,
        reason = "the interface has it; nothing of ours is upstream"
    )]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

type Answer<T> = wasmtime::Result<(Result<T, Error>,)>;

pub(super) fn define(interface: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "get",
        |store: StoreContextMut<'_, ComponentState>, (key,): (String,)| -> Answer<Option<String>> {
            Ok((store.data().configuration().get(&key).map_err(Error::Io),))
        },
    )?;
    interface.func_wrap(
        "get-all",
        |store: StoreContextMut<'_, ComponentState>, (): ()| -> Answer<Vec<(String, String)>> {
            Ok((store.data().configuration().all().map_err(Error::Io),))
        },
    )
}

impl Configuration {
    pub(crate) fn new(dir: Option<&str>, env: &[(String, String)], preopens: &[Preopen]) -> Self {
        let Some(dir) = dir.map(Path::new) else {
            return Self::Environment(env.to_vec());
        };
        // The guest's own view: the host reads nothing for it that it could not read itself.
        match in_process(preopens, dir) {
            Some(place) => Self::Directory(place),
            None => Self::Hidden(dir.to_owned()),
        }
    }

    fn get(&self, key: &str) -> Result<Option<String>, String> {
        match self {
            Self::Environment(env) => {
                let found = env.iter().find(|(name, _)| name == key);
                Ok(found.map(|(_, value)| value.clone()))
            }
            Self::Directory(dir) if is_key(key) => value(dir, &dir.join(key)),
            Self::Directory(_) => Ok(None),
            Self::Hidden(dir) => Err(hidden(dir)),
        }
    }

    fn all(&self) -> Result<Vec<(String, String)>, String> {
        let dir = match self {
            Self::Environment(env) => return Ok(env.clone()),
            Self::Directory(dir) => dir,
            Self::Hidden(dir) => return Err(hidden(dir)),
        };
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", dir.display());
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(key) = entry
                .file_name()
                .to_str()
                .filter(|key| is_key(key))
                .map(str::to_owned)
            else {
                continue;
            };
            if let Some(value) = value(dir, &entry.path())? {
                all.push((key, value));
            }
        }
        all.sort();
        Ok(all)
    }
}

/// A file's name. What begins with two dots is the kubelet's (`..data`).
fn is_key(name: &str) -> bool {
    !name.is_empty() && name != "." && !name.starts_with("..") && !name.contains('/')
}

fn hidden(dir: &Path) -> String {
    format!(
        "{} (sampan.dev/config-dir) is in no directory that the guest sees",
        dir.display()
    )
}

/// The text of a file below the directory; links may lead through it, as the kubelet's do, but not out of it.
fn value(dir: &Path, path: &Path) -> Result<Option<String>, String> {
    let read = || -> std::io::Result<Option<String>> {
        let real = path.canonicalize()?;
        if !real.starts_with(dir.canonicalize()?) || !real.is_file() {
            return Ok(None);
        }
        let mut text = String::new();
        std::fs::File::open(real)?
            .take(LONGEST)
            .read_to_string(&mut text)?;
        Ok(Some(text))
    };
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(|error| format!("cannot read {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use plan::Access;

    use super::*;

    #[test]
    fn files_are_values_and_nothing_leads_out() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("config");
        std::fs::create_dir_all(dir.join("..data")).expect("made");
        std::fs::write(dir.join("..data/greeting"), "hello\n").expect("written");
        std::os::unix::fs::symlink("..data/greeting", dir.join("greeting")).expect("linked");
        std::fs::write(place.path().join("secret"), "no").expect("written");
        std::os::unix::fs::symlink("../secret", dir.join("leak")).expect("linked");
        let preopens = [Preopen {
            path: place.path().to_str().expect("text").to_owned(),
            source: None,
            access: Access::ReadOnly,
        }];
        let config = Configuration::new(dir.to_str(), &[], &preopens);
        assert_eq!(config.get("greeting"), Ok(Some("hello\n".to_owned())));
        for absent in ["leak", "../secret", "..data", "none", ""] {
            assert_eq!(config.get(absent), Ok(None), "{absent}");
        }
        assert_eq!(
            config.all(),
            Ok(vec![("greeting".to_owned(), "hello\n".to_owned())])
        );
        assert!(
            Configuration::new(dir.to_str(), &[], &[])
                .get("greeting")
                .expect_err("hidden")
                .contains("config-dir")
        );
    }

    #[test]
    fn without_a_directory_it_is_the_environment() {
        let env = [("A".to_owned(), "1".to_owned())];
        let config = Configuration::new(None, &env, &[]);
        assert_eq!(config.get("A"), Ok(Some("1".to_owned())));
        assert_eq!(config.get("B"), Ok(None));
        assert_eq!(config.all(), Ok(env.to_vec()));
    }
}
