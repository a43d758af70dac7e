//! Real parts for tests: a private containerd (2.x or 1.7), a private registry, images of every format that the shim
//! accepts, and drivers for the Task API and CRI.
//!
//! Everything lives in one [`Scratch`] directory per containerd, on its own sockets and ports; tests run in parallel.
//! Dropping a [`Containerd`] ends every process, mount, cgroup and network device that it brought; what a killed test
//! process left is swept by the next one. To see whether the *shim* cleans up, ask [`Containerd::assert_clean`] before.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let registry = harness::Registry::start()?;
//! let containerd = harness::Containerd::builder().registry(&registry).start().await?;
//! let image = harness::image::cncf(b"\0asm\x01\0\0\0".to_vec(), "wasip1");
//! let reference = registry.push("hello:v1", &image).await?;
//! let cri = containerd.cri().await?;
//! cri.pull(&reference).await?;
//! let pod = cri.pod("sampan").run().await?;
//! let container = pod.container("hello", &reference).command(["/"]).create().await?;
//! container.start().await?;
//! println!("{} {:?}", container.wait().await?.exit_code, container.logs()?);
//! pod.remove().await?;
//! containerd.assert_clean().await
//! # }
//! ```
#![forbid(unsafe_code)]

mod containerd;
mod cri;
mod disk;
mod guest;
pub mod image;
mod leftovers;
mod network;
mod poll;
pub mod proc;
pub mod process;
mod registry;
mod said;
mod scope;
mod scratch;
mod task;
mod tree;
mod web;

pub use containerd::{Builder as ContainerdBuilder, Containerd, Handler, Version, tail};
pub use cri::{Container as CriContainer, ContainerBuilder, Cri, Exit, Logs, Pod, PodBuilder};
pub use disk::Disk;
pub use guest::{able, guest};
pub use leftovers::Leftovers;
pub use poll::{logged, until, until_every};
pub use registry::Registry;
pub use said::said;
pub use scope::{dense, runtime, shim};
pub use scratch::{Scratch, unique};
pub use task::{Events, Exec, ExecBuilder, Output, Stdio, Task, TaskBuilder};
pub use tools::Tools;
pub use tree::Tree;
pub use web::{Answer, free_address, get, listening, post};

/// The runtime type of runc's shim.
pub const RUNC: &str = "io.containerd.runc.v2";

/// Where cargo has put the binaries that were built with the running test (`target/<profile>`), or
/// `$SAMPAN_SHIM_DIR` to test others.
///
/// # Errors
/// When the running program is not below a cargo target directory.
pub fn built_dir() -> anyhow::Result<std::path::PathBuf> {
    use anyhow::Context as _;
    if let Some(dir) = std::env::var_os("SAMPAN_SHIM_DIR") {
        return Ok(dir.into());
    }
    let test = std::env::current_exe().context("find the running test")?;
    let dir = test.parent().context("the running test has a directory")?;
    // A test binary is in target/<profile>/deps, an ordinary one in target/<profile>.
    Ok(if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    }
    .to_path_buf())
}
