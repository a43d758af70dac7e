//! Go programs, built from modules that wrappers in `test/tools/go` pin with everything below them.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tools::{GoModule, Pins, Purpose};

use super::{debian, install_by_rename};
use crate::step;

/// A Go of at least the pinned version.
pub(crate) struct Go {
    pub(crate) command: PathBuf,
}

/// Finds Go on PATH, else takes Debian's; where that one is older than the pin, it fetches the pinned toolchain as a
/// module (which even the Go of Debian 12 can, and checks against the checksum database).
pub(crate) fn find(pins: &Pins, home: &Path) -> Result<Go> {
    let mut command = PathBuf::from("go");
    if step::output(Command::new(&command).arg("version")).is_err() {
        command = debian_go(home)?;
    }
    let found = step::output(
        Command::new(&command)
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local"),
    )?;
    let found = found.trim().trim_start_matches("go");
    if numbers(found) >= numbers(&pins.go.version) {
        return Ok(Go { command });
    }
    fetch_toolchain(&command, &pins.go.version)
}

pub(super) fn build(go: &Go, name: &str, module: &GoModule, target: &Path) -> Result<()> {
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../test/tools/go")
        .join(name);
    install_by_rename(target, |dir| {
        let bin = dir.join("bin");
        fs::create_dir(&bin)?;
        let work = |action: &[&str]| {
            let mut command = Command::new("nice");
            command
                .arg(&go.command)
                .current_dir(&wrapper)
                .env("CGO_ENABLED", "0")
                .env("GOTOOLCHAIN", "local")
                .env("GOFLAGS", "-mod=readonly")
                .args(action)
                .args(["-trimpath", "-buildvcs=false"])
                // Snapshotters that need C or devices; the tests use overlayfs.
                .args(["-tags", "no_aufs no_btrfs no_devmapper no_zfs"])
                .arg("-ldflags")
                .arg(linker_flags(module));
            command
        };
        let minutes = match module.purpose {
            Purpose::E2e | Purpose::Older => "three to ten minutes",
            Purpose::Test | Purpose::Conformance | Purpose::Kind => "one to three minutes",
        };
        let what = format!("{name} {} (Go; {minutes} the first time)", module.version);
        if !module.commands.is_empty() {
            let mut command = work(&["build"]);
            command.arg("-o").arg(format!("{}/", bin.display())).args(
                module
                    .commands
                    .iter()
                    .map(|command| format!("{}/{command}", module.module)),
            );
            step::run(&what, &mut command)?;
        }
        for suite in &module.suites {
            let file = suite.rsplit('/').next().unwrap_or(suite);
            let mut command = work(&["test", "-c"]);
            command
                .arg("-o")
                .arg(bin.join(file))
                .arg(format!("{}/{suite}", module.module));
            step::run(&what, &mut command)?;
        }
        for (file, package) in &module.programs {
            let mut command = work(&["build"]);
            command.arg("-o").arg(bin.join(file)).arg(package);
            step::run(&format!("{file} (Go, with {name})"), &mut command)?;
        }
        Ok(())
    })
}

/// Without symbols, and with what `--version` prints.
fn linker_flags(module: &GoModule) -> String {
    let mut flags = "-s -w".to_owned();
    if !module.version_variable.is_empty() {
        let _ = write!(
            flags,
            " -X {}/{}={}",
            module.module, module.version_variable, module.version
        );
    }
    for (variable, value) in &module.variables {
        let _ = write!(flags, " -X {variable}={value}");
    }
    flags
}

/// Unpacks Debian's Go below the tools directory.
fn debian_go(home: &Path) -> Result<PathBuf> {
    let target = home.join("debian-go");
    if !target.exists() {
        step::say("no go on PATH: taking Debian's");
        let list = step::output(Command::new("apt-cache").args(["depends", "golang-go"]))?;
        // golang-go is a link to golang-1.NN-go, which needs golang-1.NN-src.
        let versioned = list
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|package| package.starts_with("golang-1."))
            .context("find Debian's versioned Go package: run `apt-get update`, or put go on PATH")?
            .to_owned();
        let source = versioned.replace("-go", "-src");
        let packages = BTreeMap::from([(versioned, String::new()), (source, String::new())]);
        install_by_rename(&target, |dir| {
            debian::unpack(&packages, dir)?;
            assemble(dir)
        })?;
    }
    Ok(target.join("go/bin/go"))
}

/// Debian splits GOROOT over /usr/lib and /usr/share and joins it with absolute links, which do not hold here.
fn assemble(dir: &Path) -> Result<()> {
    let root = dir.join("go");
    fs::create_dir(&root)?;
    for half in ["usr/share", "usr/lib"] {
        for versioned in
            fs::read_dir(dir.join(half)).with_context(|| format!("list {half} of Debian's Go"))?
        {
            let versioned = versioned?;
            if !versioned.file_name().to_string_lossy().starts_with("go-1.") {
                continue;
            }
            merge(&versioned.path(), &root)?;
        }
    }
    Ok(())
}

/// Moves what is below `from` to below `to`, except links; both halves have some directories, such as `pkg`.
fn merge(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
        } else if !kind.is_symlink() {
            fs::rename(entry.path(), &target)
                .with_context(|| format!("move {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn fetch_toolchain(old: &Path, version: &str) -> Result<Go> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    step::say(&format!("go {version} (as a module)"));
    let mut download = Command::new(old);
    download
        .current_dir("/")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .args(["mod", "download", "-json"])
        .arg(format!(
            "golang.org/toolchain@v0.0.1-go{version}.linux-{arch}"
        ));
    let answer: serde_json::Value = serde_json::from_str(&step::output(&mut download)?)
        .context("read the answer of go mod download")?;
    let root = PathBuf::from(
        answer["Dir"]
            .as_str()
            .context("go mod download names no directory")?,
    );
    // Modules are stored without the executable bit.
    for dir in ["bin".into(), format!("pkg/tool/linux_{arch}")] {
        for entry in fs::read_dir(root.join(&dir))
            .with_context(|| format!("list {dir} of the Go toolchain"))?
        {
            let path = entry?.path();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(Go {
        command: root.join("bin/go"),
    })
}

/// `1.26.8` as numbers, for comparison; a suffix such as `rc1` counts as nothing.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.26.10") > numbers("1.26.8"));
        assert!(numbers("1.27") > numbers("1.26.8"));
        assert!(numbers("1.19.8") < numbers("1.26.8"));
    }
}
