//! `cargo xtask build`: the binaries as they ship.
mod cross;
mod elf;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{step, tools};

/// Processors that we build for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Processor {
    /// amd64
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// arm64
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Processor {
    /// The one that this program runs on.
    pub(crate) fn host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("build for {other}: Sampan is built for x86_64 and aarch64"),
        }
    }

    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// As images call it.
    pub(crate) fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// `e_machine` of an ELF header.
    fn machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }
}

/// Package, binary and profile of what ships.
const BINARIES: &[(&str, &str, &str)] = &[
    ("shim", "containerd-shim-sampan-v1", "small"),
    ("runner", "sampan-runner", "release"),
    ("node", NODE, "small"),
];

/// The DaemonSet's program, which goes into the image alone.
pub(crate) const NODE: &str = "sampan-node";
/// What containerd executes, and what that executes: installed by hand or by the program above.
pub(crate) const RUNTIME: [&str; 2] = ["containerd-shim-sampan-v1", "sampan-runner"];
/// The second name of the first, by which containerd asks for one supervisor for all pods of a node: a link beside it.
pub(crate) const DENSE: &str = "containerd-shim-sampan-dense-v1";

/// The command line tool: for people's machines, and so not among what is tested, packed and installed.
const TOOL: &[(&str, &str, &str)] = &[("sampan", "sampan", "release")];

/// Builds the command line tool as it ships and returns the directory in which it lies.
pub(crate) fn tool(processor: Processor) -> Result<PathBuf> {
    build(TOOL, processor, true)
}

/// Builds all binaries for `processor` and returns the directory in which they lie.
///
/// With `release` false the development profile is used: quick to build, large and slow to run.
pub(crate) fn run(processor: Processor, release: bool) -> Result<PathBuf> {
    tools::protoc()?;
    let built = build(BINARIES, processor, release)?;
    link(&built)?;
    Ok(built)
}

fn build(binaries: &[(&str, &str, &str)], processor: Processor, release: bool) -> Result<PathBuf> {
    let triple = processor.triple();
    for (package, binary, profile) in binaries {
        // One after the other: built together, each would get the features that only the other asks for.
        let mut cargo = Command::new("cargo");
        cargo.current_dir(checkout()).args([
            "build",
            "--locked",
            "--target",
            triple,
            "--package",
            package,
        ]);
        if release {
            cargo.args(["--profile", profile]);
        } else {
            // As in what ships, where nothing can unwind (.cargo/config.toml).
            cargo.args(["--config", "profile.dev.panic='abort'"]);
        }
        // They would replace the flags of .cargo/config.toml, and with them the form of the binaries.
        cargo
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        cross::prepare(&mut cargo, processor)?;
        step::run(
            &format!("{binary} for {triple} (some minutes the first time)"),
            &mut cargo,
        )?;
    }

    let built = target_dir().join(triple);
    if !release {
        return Ok(built.join("debug"));
    }
    let dist = target_dir().join("dist").join(triple);
    fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    for (_, name, profile) in binaries {
        let built = built.join(profile).join(name);
        let size = check(&built, processor)?;
        copy(&built, &dist.join(name))?;
        eprintln!(
            "    {} ({:.1} MB)",
            dist.join(name).display(),
            size as f64 / 1e6
        );
    }
    Ok(dist)
}

/// The directory of what is to be tried: what `SAMPAN_SHIM_DIR` names, as for the suites, else what ships, built if need
/// be.
pub(crate) fn tried() -> Result<PathBuf> {
    match std::env::var_os("SAMPAN_SHIM_DIR") {
        Some(named) => Ok(named.into()),
        None => run(Processor::host()?, true),
    }
}

/// Copies the two binaries of this machine's processor into `directory`, and makes the link, replacing what is there.
pub(crate) fn install(directory: &Path) -> Result<()> {
    let dist = run(Processor::host()?, true)?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    for name in RUNTIME {
        copy(&dist.join(name), &directory.join(name))?;
        println!("{}", directory.join(name).display());
    }
    link(directory)?;
    println!("{}", directory.join(DENSE).display());
    Ok(())
}

/// Whether the file is what the documents promise: for the right processor, static, at a fixed address, stripped, and
/// not too large. Returns its size in bytes.
fn check(path: &Path, processor: Processor) -> Result<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let header = elf::Header::parse(&bytes).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        header.machine == processor.machine(),
        "{name} is built for another processor (e_machine {})",
        header.machine
    );
    ensure!(
        header.fixed,
        "{name} is position-independent: are the rustflags of .cargo/config.toml in force?"
    );
    ensure!(
        !header.dynamic,
        "{name} is not static: it asks for a dynamic loader"
    );
    ensure!(!header.symbols, "{name} is not stripped");
    let size = bytes.len() as u64;
    if let Some(bound) = size_bound(&name)? {
        ensure!(
            size <= bound,
            "{name} has {size} bytes; {BOUNDS} allows {bound}"
        );
    }
    Ok(size)
}

/// What the launch path may cost and how large the binaries may be.
pub(crate) const BOUNDS: &str = "test/bench/bounds.toml";

/// Bytes that a binary may have; none if nobody bounds it.
fn size_bound(name: &str) -> Result<Option<u64>> {
    let path = checkout().join(BOUNDS);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let bounds: toml::Table =
        toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let bound = bounds.get("sizes").and_then(|sizes| sizes.get(name));
    Ok(bound
        .and_then(toml::Value::as_integer)
        .and_then(|bound| u64::try_from(bound).ok()))
}

/// By a rename: a binary that runs can be replaced, but not written to.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary)
        .and_then(|_| fs::rename(&temporary, to))
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// Gives the shim of a directory its second name.
pub(crate) fn link(directory: &Path) -> Result<()> {
    let (link, temporary) = (
        directory.join(DENSE),
        directory.join(format!("{DENSE}.new")),
    );
    // One that was left half way.
    drop(fs::remove_file(&temporary));
    // Relative, so that it holds wherever the directory goes.
    symlink(RUNTIME[0], &temporary)
        .and_then(|()| fs::rename(&temporary, &link))
        .with_context(|| format!("link {} to {}", link.display(), RUNTIME[0]))
}

/// The root of this checkout.
pub(crate) fn checkout() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}
