//! What every way of measuring stands on: the programs, a network, the shims, a containerd with the images in it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::Scratch;
use tools::Tools;

use crate::containerd::{Containerd, Level};
use crate::contestant::Contestant;
use crate::image;
use crate::measure::{Bench, Guest};
use crate::netns::NetworkNamespace;
use crate::options::Options;
use crate::programs::Hello;
use crate::task::Yard;

/// Tasks of each contestant before anything is measured: page cache, compiled artifacts.
pub(crate) const WARM_UPS: usize = 5;

/// Taken down when dropped, with all that carries the scratch directory's tag.
pub(crate) struct Stage {
    tools: Tools,
    /// Where containerd finds shims, first to last.
    pub(crate) shims: Vec<PathBuf>,
    pub(crate) hello: Hello,
    network: NetworkNamespace,
    /// After the network, which is mounted in it.
    pub(crate) scratch: Scratch,
    pause: Duration,
}

impl Stage {
    pub(crate) fn set(options: &Options) -> Result<Self> {
        let tools = Tools::locate()?;
        let scratch = Scratch::new()?;
        eprintln!("bench: building the guest");
        Ok(Self {
            shims: shim_directories(options, &tools, &tools::cache_dir()?),
            tools,
            hello: Hello::build(scratch.dir())?,
            network: NetworkNamespace::create(scratch.dir().join("netns"))?,
            scratch,
            pause: Duration::from_millis(options.pause_ms),
        })
    }

    /// Starts a containerd, on the stores of the one before it, which must have ended.
    pub(crate) async fn containerd(&self, level: Level) -> Result<Containerd> {
        let program = &self.tools.containerd_2.containerd;
        Containerd::start(program, &self.shims, self.scratch.dir(), level).await
    }

    /// Puts what everybody runs into containerd's stores.
    pub(crate) async fn stock(&self, containerd: &Containerd) -> Result<Bench<'_>> {
        let yard = Yard {
            channel: containerd.channel.clone(),
            directory: self.scratch.dir().to_owned(),
            network: self.network.path().to_owned(),
            cgroup: self.scratch.cgroup_parent(),
        };
        let name = "localhost/bench:native";
        Ok(Bench {
            serial: Cell::new(0),
            pause: self.pause,
            scratch: &self.scratch,
            socket: containerd.socket().to_owned(),
            native: image::rootfs(&yard.channel, name, "hello", &self.hello.native).await?,
            hello: Guest::both(&yard, "hello", &self.hello.module).await?,
            yard,
        })
    }
}

pub(crate) async fn warm_up(bench: &Bench<'_>, contestant: &Contestant) -> Result<()> {
    for round in 0..WARM_UPS {
        let life = bench.once(contestant, &bench.hello).await;
        life.with_context(|| format!("warm-up {round}"))?;
    }
    Ok(())
}

pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Given ones, then the bench's own (the floor lies beside it), the cache's baseline, our release build, and runc's.
fn shim_directories(options: &Options, tools: &Tools, cache: &Path) -> Vec<PathBuf> {
    let mut directories = options.shims.clone();
    if let Some(own) = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.to_owned()))
    {
        directories.push(own);
    }
    directories.push(cache.join("baseline-target/release"));
    directories.push(target_directory().join(format!(
        "{}-unknown-linux-musl/release",
        std::env::consts::ARCH
    )));
    directories.push(tools.containerd_2.dir.clone());
    directories.extend(tools.runc.parent().map(ToOwned::to_owned));
    directories
}
