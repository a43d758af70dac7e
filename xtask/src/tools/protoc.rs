//! protoc, for the gRPC bindings of the test crates: taken from a crate that carries it, so no package is needed.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::step;

pub(super) fn install(home: &Path) -> Result<()> {
    let target = home.join("protoc");
    if target.join("bin/protoc").exists() {
        return Ok(());
    }
    step::say("protoc");
    let binary =
        protoc_bin_vendored::protoc_bin_path().context("find a protoc for this platform")?;
    let include = protoc_bin_vendored::include_path().context("find protoc's own .proto files")?;
    super::install_by_rename(&target, |dir| {
        fs::create_dir(dir.join("bin"))?;
        // fs::copy keeps the mode.
        fs::copy(&binary, dir.join("bin/protoc"))
            .with_context(|| format!("copy {}", binary.display()))?;
        // protoc looks for google/protobuf/*.proto in ../include.
        copy_tree(&include, &dir.join("include"))
    })
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)
                .with_context(|| format!("copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
