//! A C compiler and a linker for the binaries that ship.
//!
//! On the processor of this machine Debian's `musl-gcc` compiles the C and assembly of `ring` and mimalloc, where it is
//! installed. For others, and elsewhere, zig does it, which comes from PyPI with the toolchains of the guests; rust-lld links.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tools::cache_dir;

use super::Processor;
use crate::guests;

pub(super) fn prepare(cargo: &mut Command, processor: Processor) -> Result<()> {
    let native = Processor::host()? == processor;
    if native && processor == Processor::X86_64 && on_path("musl-gcc") {
        return Ok(());
    }
    let zig = guests::zig()?;
    let triple = processor.triple();
    let own_name = triple.replace("-unknown", "");
    let directory = cache_dir()?.join("cross").join(triple);
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let variable = triple.replace('-', "_");
    for (tool, prefix, arguments) in [
        ("cc", "CC", format!("cc -target {own_name}")),
        ("ar", "AR", "ar".to_owned()),
    ] {
        let script = directory.join(tool);
        write_wrapper(&script, &zig, &arguments, &directory)?;
        cargo.env(format!("{prefix}_{variable}"), &script);
    }
    if !native {
        let variable = variable.to_uppercase();
        cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), "rust-lld");
    }
    Ok(())
}

/// zig knows targets by names without a vendor, so the one that the build scripts pass must not reach it.
fn write_wrapper(script: &Path, zig: &Path, arguments: &str, directory: &Path) -> Result<()> {
    let text = format!(
        "#!/bin/sh\n\
         export ZIG_GLOBAL_CACHE_DIR='{cache}' ZIG_LOCAL_CACHE_DIR='{cache}'\n\
         for argument; do\n\
         \x20   shift\n\
         \x20   case \"$argument\" in --target=*) ;; *) set -- \"$@\" \"$argument\" ;; esac\n\
         done\n\
         exec '{zig}' {arguments} \"$@\"\n",
        cache = directory.join("zig-cache").display(),
        zig = zig.display(),
    );
    fs::write(script, text)
        .and_then(|()| fs::set_permissions(script, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("write {}", script.display()))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory: PathBuf| directory.join(program))
        .any(|file| file.is_file())
}
