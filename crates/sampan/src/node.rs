//! This machine as a node: its configuration, and which store is meant.

use std::path::{Path, PathBuf};

use plan::NodeConfig;
use store::{Limits, Store, StoreError};

use crate::arguments::StorePlace;
use crate::failure::{Failure, Kind, Outcome};
use crate::run::kept;

/// Where the node's administrator writes; a missing file is an empty one.
pub(crate) const CONFIG: &str = "/etc/sampan/config.toml";

/// The node's configuration: of the file that was named, else of the usual one if it is there.
pub(crate) fn configuration(named: Option<&Path>) -> Outcome<NodeConfig> {
    let path = named.unwrap_or(Path::new(CONFIG));
    match std::fs::read_to_string(path) {
        Ok(text) => NodeConfig::of_file(&text, path)
            .map_err(|error| Failure::at(Kind::Wrong, path.display(), error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok(NodeConfig::default())
        }
        Err(error) => Err(Failure::at(
            Kind::NotFound,
            format!("cannot read {}", path.display()),
            error,
        )),
    }
}

/// A store, by its place and what it may keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) path: PathBuf,
    pub(crate) limits: Limits,
}

impl Chosen {
    /// The directory that was named; else that of the node's configuration, if one was named or we are root; else that of
    /// `sampan run`.
    pub(crate) fn of(store: Option<&Path>, node_config: Option<&Path>) -> Outcome<Self> {
        let of_node = node_config.is_some() || rustix::process::geteuid().is_root();
        let mut chosen = if of_node {
            let node = configuration(node_config)?.store;
            Self {
                path: node.path,
                limits: Limits {
                    max_bytes: node.max_bytes,
                },
            }
        } else {
            Self {
                path: kept::store_place()?,
                limits: kept::LIMITS,
            }
        };
        if let Some(path) = store {
            // The store goes down from the root, step by step.
            chosen.path = std::path::absolute(path)
                .map_err(|error| Failure::at(Kind::Wrong, path.display(), error))?;
        }
        Ok(chosen)
    }

    /// The store as it is there; nothing is made.
    pub(crate) fn existing(place: &StorePlace) -> Outcome<(Self, Store)> {
        let chosen = Self::of(place.store.as_deref(), place.node_config.as_deref())?;
        let found = Store::existing(&chosen.path, chosen.limits).map_err(failed)?;
        let store = found.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                format!("there is no store in {}", chosen.path.display()),
            )
        })?;
        Ok((chosen, store))
    }
}

/// What the store says of itself names the path and what to do.
pub(crate) fn failed(error: StoreError) -> Failure {
    let kind = match &error {
        StoreError::Path(_) => Kind::Wrong,
        _ => Kind::System,
    };
    Failure::of(kind, error)
}
