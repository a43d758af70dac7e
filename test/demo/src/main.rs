//! `make demo`: a real containerd pulls a real Wasm artifact from a real registry and runs it through Sampan.
//!
//! Everything is private to this run (directories, sockets, ports, network, artifact store) and is gone at the end, which
//! is shown and checked. With `CONTAINERD_ADDRESS` set, the containerd that listens there is used instead, in a namespace
//! of its own.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "a demonstration: its output is its purpose"
)]

mod given;
mod machine;
mod screen;
mod story;

use anyhow::{Result, bail};
use screen::Screen;

#[tokio::main]
async fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("run the demo as root: containerd makes namespaces and mounts");
    }
    let mut screen = Screen::default();
    let tag = match std::env::var("CONTAINERD_ADDRESS") {
        Ok(address) if !address.is_empty() => given::tell(&mut screen, &address).await?,
        _ => story::tell(&mut screen).await?,
    };

    screen.chapter("The machine, after containerd, the registry and their files are gone");
    let traces = machine::traces(&tag)?;
    if traces.is_empty() {
        screen.line(
            "no process, mount, cgroup, network device or directory of this run: as it was before",
        );
    } else {
        for trace in &traces {
            screen.line(trace);
        }
        bail!("the demo left {} things behind", traces.len());
    }
    screen.close();
    Ok(())
}
