//! Debian packages, downloaded and unpacked into the cache; nothing is installed.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tools::Pins;

use super::install_by_rename;
use crate::step;

pub(super) fn install(pins: &Pins, target: &Path) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    install_by_rename(target, |dir| unpack(&pins.debian, dir))
}

/// One package of whatever version the system offers, unpacked below `home` once; returns its directory.
pub(crate) fn any(package: &str, home: &Path) -> Result<PathBuf> {
    let target = home.join(package);
    if !target.exists() {
        let packages = BTreeMap::from([(package.to_owned(), String::new())]);
        install_by_rename(&target, |dir| unpack(&packages, dir))?;
    }
    Ok(target)
}

/// Downloads packages and unpacks them into `dir`.
pub(crate) fn unpack(packages: &BTreeMap<String, String>, dir: &Path) -> Result<()> {
    let debs = dir.join("debs");
    fs::create_dir_all(&debs).with_context(|| format!("create {}", debs.display()))?;
    for (package, version) in packages {
        step::say(&format!("package {package} {version}"));
        download(package, version, &debs)?;
    }
    for deb in fs::read_dir(&debs)? {
        let deb = deb?.path();
        step::output(Command::new("dpkg").arg("-x").arg(&deb).arg(dir))?;
    }
    fs::remove_dir_all(&debs).context("remove the downloaded packages")
}

fn download(package: &str, version: &str, debs: &Path) -> Result<()> {
    // An empty pin asks for whatever there is.
    let pinned = if version.is_empty() {
        package.to_owned()
    } else {
        format!("{package}={version}")
    };
    if get(&pinned, debs).is_ok() {
        return Ok(());
    }
    // A fresh machine has no package lists, an old one has stale ones.
    let update = step::run(
        "apt-get update",
        Command::new("apt-get").args(["-qq", "update"]),
    );
    if get(&pinned, debs).is_ok() {
        return Ok(());
    }
    match get(package, debs) {
        Ok(()) => {
            step::say(&format!(
                "note: {package} {version} is not offered any more; took apt's candidate instead"
            ));
            Ok(())
        }
        Err(error) => match update {
            Err(update) => bail!("download package {package}: {error:#} (before that: {update:#})"),
            Ok(()) => Err(error.context(format!("download package {package}"))),
        },
    }
}

fn get(what: &str, debs: &Path) -> Result<()> {
    // apt's own unprivileged user cannot write into our cache; apt-get download needs no privilege.
    let mut apt = Command::new("apt-get");
    apt.current_dir(debs)
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", what]);
    step::output(&mut apt).map(drop)
}
