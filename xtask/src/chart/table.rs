//! The values as a table of the chart's README.
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::values::{Content, Value};

const BEGIN: &str = "<!-- cargo xtask chart: values -->\n";
const END: &str = "<!-- end -->";

/// The page with its table written anew.
pub(super) fn into_page(page: &str, values: &[Value]) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("it has no table of values")?;
    let (_, after) = rest
        .split_once(END)
        .context("its table of values has no end")?;
    let mut table = String::from("| value | default | meaning |\n|---|---|---|\n");
    rows("", values, &mut table);
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn rows(above: &str, values: &[Value], table: &mut String) {
    for value in values {
        let path = format!("{above}{}", value.key);
        match &value.content {
            Content::Keys(keys) => rows(&format!("{path}."), keys, table),
            Content::Default(default) => {
                let default = default.to_string().replace('|', "\\|");
                let meaning = value.description.replace('|', "\\|");
                let _ = writeln!(table, "| `{path}` | `{default}` | {meaning} |");
            }
        }
    }
}
