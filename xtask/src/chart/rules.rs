//! The alerts, read by Prometheus' own promtool.
use std::fs;
use std::path::Path;
use std::process::Command;

use ::tools::cache_dir;
use anyhow::{Context, Result, ensure};

use super::text;
use crate::step;
use crate::tools::debian;

/// What Debian has promtool in.
const PACKAGE: &str = "prometheus";

pub(super) fn check(chart: &Path) -> Result<()> {
    let promtool = debian::any(PACKAGE, &cache_dir()?.join("tools"))?.join("usr/bin/promtool");
    let rules = chart.join("files/rules.yaml");
    let said = step::output(Command::new(&promtool).args(["check", "rules"]).arg(&rules))?;
    let found = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("SUCCESS: "))
        .with_context(|| format!("promtool did not say what it found: {said}"))?;
    eprintln!("    promtool: {found}");

    // A check that finds nothing wrong has to find something.
    let broken = text(&rules)?.replace("rate(", "rat(");
    let directory = tempfile::tempdir().context("make a directory for broken rules")?;
    let path = directory.path().join("rules.yaml");
    fs::write(&path, broken).with_context(|| format!("write {}", path.display()))?;
    let refused = step::output(Command::new(&promtool).args(["check", "rules"]).arg(&path));
    ensure!(
        refused.is_err(),
        "promtool takes a function that does not exist"
    );
    Ok(())
}
