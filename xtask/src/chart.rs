//! `cargo xtask chart`: what follows from `charts/sampan/values.yaml`: the chart's schema and table, and the manifests in
//! `deploy/` for those who do not use Helm.
mod render;
mod rules;
mod schema;
mod table;
mod try_out;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::render::Helm;
pub(crate) use self::try_out::try_out;
use self::values::Value;
use crate::build::checkout;

/// A file that is made, and what it should hold.
struct Made {
    path: PathBuf,
    content: String,
}

/// Writes all that follows from the values; with `check` only says whether it is fresh.
pub(crate) fn run(check: bool) -> Result<()> {
    let chart = directory();
    // Helm refuses values that the schema does not have, so the schema comes first.
    settle(&from_values(&chart)?, check)?;
    settle(&render::manifests(&Helm::find()?, &chart)?, check)
}

fn directory() -> PathBuf {
    checkout().join("charts/sampan")
}

/// The schema and the table, for which the values alone are needed.
fn from_values(chart: &Path) -> Result<Vec<Made>> {
    let values = read(chart)?;
    let readme = chart.join("README.md");
    let page = text(&readme)?;
    Ok(vec![
        Made {
            path: chart.join("values.schema.json"),
            content: schema::render(&values)?,
        },
        Made {
            content: table::into_page(&page, &values)
                .with_context(|| format!("write the table of {}", readme.display()))?,
            path: readme,
        },
    ])
}

fn read(chart: &Path) -> Result<Vec<Value>> {
    let path = chart.join("values.yaml");
    values::parse(&text(&path)?).with_context(|| format!("read {}", path.display()))
}

fn settle(made: &[Made], check: bool) -> Result<()> {
    for Made { path, content } in made {
        let fresh = fs::read_to_string(path).is_ok_and(|found| found == *content);
        if check && !fresh {
            bail!(
                "{} is not what charts/sampan says: run `cargo xtask chart`",
                path.display()
            );
        }
        if !fresh {
            fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_and_the_table_are_fresh() {
        let made = from_values(&directory()).expect("the values can be read");
        settle(&made, true).expect("fresh");
    }

    /// The table of environment variables of the node program is what the chart sets: an unknown one would be ignored.
    #[test]
    fn every_variable_that_is_set_is_one_of_the_node_program() {
        let settings = text(&checkout().join("crates/node/src/settings.rs")).expect("settings");
        let daemonset = text(&directory().join("templates/daemonset.yaml")).expect("template");
        let set: Vec<&str> = daemonset
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- name: "))
            .filter(|name| name.starts_with("SAMPAN_") || name.ends_with("_NAME"))
            .collect();
        assert!(set.len() > 5, "{set:?}");
        for name in set {
            assert!(
                settings.contains(&format!("env = \"{name}\"")),
                "the node program does not know {name}"
            );
        }
    }
}
