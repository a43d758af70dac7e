//! Toolchains that come as Python packages.
use std::fs;

use anyhow::{Context, Result};

use super::Place;
use crate::python::{self, Packages};

/// The packages of `requirements.txt`.
pub(super) fn packages(place: &Place) -> Result<Packages> {
    let requirements = place.sources.join("requirements.txt");
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("read {}", requirements.display()))?;
    python::install(
        &place.toolchains(),
        &text,
        "toolchains from PyPI: C, Node.js, Python components (200 MB; a minute)",
    )
}
