use std::path::Path;

use plan::{NodeConfig, PREFIX, Settings};

use crate::failure::{Failure, Kind, Outcome};

/// What RuntimeClass and node say.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) class: Settings,
    pub(crate) node: NodeConfig,
}

impl Given {
    pub(crate) fn new(class: &[(String, String)], node: Option<&Path>) -> Outcome<Self> {
        let node = match node {
            None => NodeConfig::default(),
            Some(path) => {
                let name = path.display();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::at(Kind::NotFound, format!("cannot read {name}"), error)
                })?;
                NodeConfig::of_file(&text, path)
                    .map_err(|error| Failure::at(Kind::Wrong, name, error))?
            }
        };
        Ok(Self {
            class: Settings::new(class.iter().cloned()),
            node,
        })
    }
}

/// Settings of a pod as its annotations.
pub(crate) fn annotations(pod: &[(String, String)]) -> Vec<(String, String)> {
    pod.iter()
        .map(|(name, value)| (format!("{PREFIX}{name}"), value.clone()))
        .collect()
}
