//! The parts of the page, between a line that names each and one that ends it. The test that compares them has this file
//! as well.

use anyhow::{Context, Result, bail};

/// Begins a part; its name and ` -->` follow.
const BEGIN: &str = "<!-- cargo xtask reference: ";
const END: &str = "<!-- end -->";

/// The page with its parts written anew.
pub(crate) fn render(page: &str) -> Result<String> {
    let mut rendered = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after
            .split_once(" -->")
            .context("a part of docs/reference.md without a name")?;
        let (_, after) = after
            .split_once(END)
            .with_context(|| format!("the part {name} of docs/reference.md has no end"))?;
        let table = match name {
            "settings" => plan::settings_table(),
            "ceilings" => plan::ceilings_list(),
            "exit codes" => plan::ExitCode::table(),
            _ => bail!("docs/reference.md has a part {name}, of which the code knows nothing"),
        };
        rendered.push_str(before);
        rendered.push_str(&format!("{BEGIN}{name} -->\n{table}{END}"));
        rest = after;
    }
    rendered.push_str(rest);
    Ok(rendered)
}
