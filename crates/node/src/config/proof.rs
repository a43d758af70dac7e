//! The proof that a candidate adds our handlers and changes nothing else: containerd's own view (`config dump`) before
//! and after must be the same but for them.
use serde_json::Value;

use super::{Entry, plugin};

/// Why a candidate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Somebody else has a handler of this name.
    #[error(
        "containerd has a handler `{0}` already, which is not ours: remove it, or leave the name out of --runtimeclasses"
    )]
    Taken(String),
    /// containerd's view lacks the handler.
    #[error("containerd's own reading of it has no handler `{0}` as it should be")]
    Missing(String),
    /// Something else would change.
    #[error("containerd's own reading of it changes {0} as well")]
    Changes(String),
}

/// containerd's view of its whole configuration.
#[derive(Clone, Debug)]
pub struct Effective(Value);

impl Effective {
    /// Reads what `containerd config dump` printed.
    ///
    /// # Errors
    /// When it is no TOML.
    pub fn parse(dump: &str) -> Result<Self, toml::de::Error> {
        let mut value: Value = toml::from_str(dump)?;
        if let Some(table) = value.as_object_mut() {
            // The list of files that were read, one more of which is no change.
            table.remove("imports");
        }
        Ok(Self(value))
    }

    /// The runtimes of CRI by their names; none where CRI is switched off.
    #[must_use]
    pub fn runtimes(&self) -> Option<&serde_json::Map<String, Value>> {
        self.cri()
            .find_map(|containerd| containerd.get("runtimes")?.as_object())
    }

    /// Whether the node's containers have their cgroups made by systemd: what the default runtime says, else runc.
    #[must_use]
    pub fn systemd_cgroup(&self) -> bool {
        let default = self
            .cri()
            .find_map(|containerd| containerd.get("default_runtime_name")?.as_str());
        let runtimes = self.runtimes();
        default
            .into_iter()
            .chain(["runc"])
            .find_map(|name| {
                runtimes?
                    .get(name)?
                    .pointer("/options/SystemdCgroup")?
                    .as_bool()
            })
            .unwrap_or_default()
    }

    /// What CRI is told of runtimes, of the newest form first.
    fn cri(&self) -> impl Iterator<Item = &Value> {
        [3, 2, 1].into_iter().filter_map(|version| {
            self.0
                .get("plugins")?
                .get(plugin(version))?
                .get("containerd")
        })
    }

    fn without(&self, entries: &[Entry]) -> Value {
        let mut value = self.0.clone();
        for version in 1..=3 {
            let runtimes = value
                .get_mut("plugins")
                .and_then(|plugins| plugins.get_mut(plugin(version)))
                .and_then(|plugin| plugin.get_mut("containerd"))
                .and_then(|containerd| containerd.get_mut("runtimes"))
                .and_then(Value::as_object_mut);
            if let Some(runtimes) = runtimes {
                for entry in entries {
                    runtimes.remove(&entry.handler);
                }
            }
        }
        value
    }
}

/// Whether nobody else has handlers of these names.
///
/// # Errors
/// [`ProofError::Taken`].
pub fn free(before: &Effective, entries: &[Entry]) -> Result<(), ProofError> {
    let taken = |entry: &&Entry| {
        before
            .runtimes()
            .is_some_and(|all| all.contains_key(&entry.handler))
    };
    match entries.iter().find(taken) {
        Some(entry) => Err(ProofError::Taken(entry.handler.clone())),
        None => Ok(()),
    }
}

/// Proves that `after` is `before` and our handlers.
///
/// # Errors
/// [`ProofError`].
pub fn prove(before: &Effective, after: &Effective, entries: &[Entry]) -> Result<(), ProofError> {
    free(before, entries)?;
    for entry in entries {
        let name = &entry.handler;
        let ours = after.runtimes().and_then(|all| all.get(name));
        if !ours.is_some_and(|runtime| entry.is(runtime)) {
            return Err(ProofError::Missing(name.clone()));
        }
    }
    match difference("", &before.0, &after.without(entries)) {
        None => Ok(()),
        Some(place) => Err(ProofError::Changes(place)),
    }
}

/// The first place where two values differ.
fn difference(place: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys());
            names
                .into_iter()
                .find_map(|name| match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => difference(&format!("{place}.{name}"), one, other),
                    _ => Some(format!("{place}.{name}").trim_start_matches('.').to_owned()),
                })
        }
        _ if one == other => None,
        _ => Some(place.trim_start_matches('.').to_owned()),
    }
}
