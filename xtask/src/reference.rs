//! `cargo xtask reference`: the tables of `docs/reference.md` that the code knows.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::build::checkout;

/// Begins a part that is written here; its name and ` -->` follow.
const BEGIN: &str = "<!-- cargo xtask reference: ";
const END: &str = "<!-- end -->";

/// Writes the tables; with `check` only says whether they are what they should be.
pub(crate) fn run(check: bool) -> Result<()> {
    let path = checkout().join("docs/reference.md");
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wanted = render(&page)?;
    if check && page != wanted {
        bail!(
            "{} is not what the code says: run `cargo xtask reference`",
            path.display()
        );
    }
    if page != wanted {
        fs::write(&path, wanted).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The page with its parts written anew.
fn render(page: &str) -> Result<String> {
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
