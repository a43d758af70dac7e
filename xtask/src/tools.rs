//! `cargo xtask tools`: what the tests run against, fetched and built into the cache.
//!
//! Idempotent: a directory is named by the hash of its inputs and appears by one rename, so whatever is there is
//! complete and of the pinned version. The host is left as it is: packages are unpacked, never installed.
pub(crate) mod debian;
pub(crate) mod go;
mod protoc;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tools::{GoModule, Pins, Purpose, Tools, cache_dir};

use crate::step;

/// Fetches what is missing and lists all of it.
pub(crate) fn run() -> Result<()> {
    let tools = fetch()?;
    for path in [
        &tools.containerd_2.containerd,
        &tools.containerd_2.ctr,
        &tools.containerd_2.shim_runc,
        &tools.containerd_1_7.containerd,
        &tools.containerd_1_7.ctr,
        &tools.containerd_1_7.shim_runc,
        &tools.crictl,
        &tools.runc,
        &tools.registry,
        &tools.busybox,
        &tools.cni,
    ] {
        println!("{}", path.display());
    }
    Ok(())
}

/// Fetches what is missing.
pub(crate) fn fetch() -> Result<Tools> {
    fetch_for(Purpose::Test)
}

/// As [`fetch`], with what is built for one purpose alone.
pub(crate) fn fetch_for(purpose: Purpose) -> Result<Tools> {
    install(|module| [Purpose::Test, purpose].contains(&module.purpose))?;
    Ok(Tools::locate()?)
}

fn install(wanted: impl Fn(&GoModule) -> bool) -> Result<()> {
    let pins = Pins::of_this_checkout();
    let cache = cache_dir()?;
    let home = cache.join("tools");
    let _lock = lock(&cache)?;
    protoc::install(&home)?;
    debian::install(&pins, &pins.debian_dir(&cache))?;
    modules(&pins, &cache, wanted)
}

/// One program of a Go module, built if it is missing; nothing else is fetched.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let pins = Pins::of_this_checkout();
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    modules(&pins, &cache, |module| {
        std::ptr::eq(module, &pins.modules[name])
    })?;
    Ok(pins.module_dir(&cache, name).join("bin").join(name))
}

fn modules(pins: &Pins, cache: &Path, wanted: impl Fn(&GoModule) -> bool) -> Result<()> {
    let home = cache.join("tools");
    let mut toolchain = None;
    for (name, module) in pins.modules.iter().filter(|(_, module)| wanted(module)) {
        let target = pins.module_dir(cache, name);
        if target.exists() {
            continue;
        }
        let go = match &toolchain {
            Some(go) => go,
            None => toolchain.insert(go::find(pins, &home)?),
        };
        go::build(go, name, module, &target)?;
    }
    Ok(())
}

/// Two checkouts, or a test run and a person, may ask at once: the second waits and then finds all there.
fn lock(cache: &Path) -> Result<File> {
    let home = cache.join("tools");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let lock =
        File::create(home.join(".lock")).context("create the lock of the tools directory")?;
    if lock.try_lock().is_err() {
        step::say("waiting for another `cargo xtask tools`");
        lock.lock().context("lock the tools directory")?;
    }
    Ok(lock)
}

/// protoc alone, which is all that building needs.
pub(crate) fn protoc() -> Result<()> {
    let home = cache_dir()?.join("tools");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    protoc::install(&home)
}

/// Fills a directory beside `target` and renames it there when `fill` has succeeded: an interrupted run leaves nothing
/// that looks complete.
pub(crate) fn install_by_rename(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let name = target
        .file_name()
        .context("a tools directory has a name")?
        .to_string_lossy();
    let temporary: PathBuf = target.with_file_name(format!(".incomplete-{name}"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary)
            .with_context(|| format!("remove {}", temporary.display()))?;
    }
    fs::create_dir_all(&temporary).with_context(|| format!("create {}", temporary.display()))?;
    fill(&temporary)?;
    fs::rename(&temporary, target)
        .with_context(|| format!("rename {} to {}", temporary.display(), target.display()))
}
