//! Servers: a pod of a shim through containerd, or a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use harness::{Containerd, Task, free_address, image, listening};
use serde_json::Value;

/// The runtime type of `test/baseline`.
const BASELINE: &str = "io.containerd.baseline.v1";

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A container of ours, with these settings.
    Sampan(&'static [(&'static str, &'static str)]),
    /// A container of the peer's library.
    Baseline,
    /// `wasmtime serve` with these arguments.
    Wasmtime(&'static [&'static str]),
}

/// One that listens.
pub(crate) struct Server<'a> {
    pub(crate) address: SocketAddr,
    running: Running<'a>,
}

enum Running<'a> {
    Container(Box<Task<'a>>),
    Process(Process),
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A containerd that finds the shims, and an image with the component as its layer.
pub(crate) struct Yard {
    pub(crate) containerd: Containerd,
    pub(crate) image: String,
    /// The component's file.
    pub(crate) component: PathBuf,
}

impl Yard {
    pub(crate) async fn new(shims: &[PathBuf]) -> Result<Self> {
        const GUEST: &str = "http-p2.wasm";
        let mut builder = Containerd::builder().without_cri();
        for directory in shims {
            builder = builder.shim_dir(directory);
        }
        let containerd = builder.start().await?;
        let image = "example.test/bench-http:v1".to_owned();
        let content = image::bytecode_alliance(harness::guest(GUEST)?);
        containerd.import(&image, &content).await?;
        Ok(Self {
            containerd,
            image,
            component: tools::cache_dir()?.join("guests").join(GUEST),
        })
    }

    /// Starts one on loopback, and waits until it listens.
    pub(crate) async fn start(&self, kind: Kind, wasmtime: Option<&Path>) -> Result<Server<'_>> {
        let address = free_address()?;
        let running = match kind {
            Kind::Sampan(settings) => {
                let settings = settings
                    .iter()
                    .map(|(name, value)| (*name, (*value).to_owned()));
                self.sampan(address, settings).await?
            }
            Kind::Baseline => {
                let task = self
                    .containerd
                    .task(&self.image)
                    .runtime(BASELINE)
                    .env("WASMTIME_HTTP_PROXY_SOCKET_ADDR", &address.to_string())
                    .host_network()
                    .args(["/"])
                    .spec(as_cri_does);
                started(task.create().await?).await?
            }
            Kind::Wasmtime(arguments) => {
                let program = wasmtime.context("no `wasmtime` was named (--wasmtime)")?;
                let child = Command::new(program)
                    // Its guest imports more than the proxy's world.
                    .args(["serve", "-S", "cli", "--addr", &address.to_string()])
                    .args(arguments)
                    .arg(&self.component)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .with_context(|| format!("start {}", program.display()))?;
                Running::Process(Process(child))
            }
        };
        listening(address).await?;
        Ok(Server { address, running })
    }

    /// Starts one of ours, and waits until it listens.
    pub(crate) async fn start_sampan(
        &self,
        settings: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Server<'_>> {
        let address = free_address()?;
        let running = self.sampan(address, settings).await?;
        listening(address).await?;
        Ok(Server { address, running })
    }

    async fn sampan(
        &self,
        address: SocketAddr,
        settings: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Running<'_>> {
        let mut task = self
            .containerd
            .task(&self.image)
            .annotation("sampan.dev/http-listen", &address.to_string())
            .host_network()
            .args(["/"])
            .spec(as_cri_does);
        for (name, value) in settings {
            task = task.annotation(&format!("sampan.dev/{name}"), &value);
        }
        started(task.create().await?).await
    }
}

/// CRI bounds no file descriptors beyond what containerd may have itself; `ctr`, whose spec this is, has 1024.
fn as_cri_does(spec: &mut Value) {
    spec["process"]["rlimits"] = Value::Array(Vec::new());
}

async fn started(mut task: Task<'_>) -> Result<Running<'_>> {
    task.start().await.context("start the task")?;
    Ok(Running::Container(Box::new(task)))
}

impl Server<'_> {
    /// The process that runs the component.
    pub(crate) fn pid(&self) -> u32 {
        match &self.running {
            Running::Container(task) => task.pid(),
            Running::Process(process) => process.0.id(),
        }
    }

    /// Ends it; a container leaves nothing behind.
    pub(crate) async fn end(self) -> Result<()> {
        if let Running::Container(mut task) = self.running {
            // The baseline's guest is deaf to SIGTERM while its supervisor starts; SIGKILL is what all obey.
            task.kill(9).await.context("kill the task")?;
            task.wait().await?;
            task.delete().await?;
        }
        Ok(())
    }
}
