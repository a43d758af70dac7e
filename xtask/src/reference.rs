//! `cargo xtask reference`: the tables of `docs/reference.md` that the code knows.

mod tables;

use std::fs;

use anyhow::{Context, Result, bail};

use crate::build::checkout;

/// Writes the tables; with `check` only says whether they are what they should be.
pub(crate) fn run(check: bool) -> Result<()> {
    let path = checkout().join("docs/reference.md");
    let page = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wanted = tables::render(&page)?;
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
