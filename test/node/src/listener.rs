//! The node program as nothing but a listener for spans, as beside a plain containerd.
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use harness::Containerd;
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::task::JoinHandle;

use crate::Program;

/// A listener that runs; killed when dropped.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    says: JoinHandle<String>,
}

impl Listener {
    /// Starts one for the supervisors of a containerd, and waits until it listens.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn start(containerd: &Containerd, variables: &[(String, String)]) -> Result<Self> {
        let mut program = Program::new(vec![
            "traces".to_owned(),
            "--host=/".to_owned(),
            format!("--run={}", containerd.sampan_run().display()),
        ]);
        for (name, value) in variables {
            program = program.env(name, value);
        }
        let mut child = program
            .command()?
            .stderr(Stdio::piped())
            .spawn()
            .context("start the listener")?;
        let stderr = child.stderr.take().context("it has a standard error")?;
        let (_, says) = harness::said(stderr, "traces go to ").await?;
        Ok(Self { child, says })
    }

    /// Ends it by a signal, waits until it has ended, and gives what it said while it listened.
    ///
    /// # Errors
    /// When it cannot be ended, or does not end well, unless it was killed.
    pub async fn end(mut self, signal: Signal) -> Result<String> {
        let pid = self.child.id().context("it runs")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, signal)?;
        let status = self.child.wait().await?;
        let says = self.says.await?;
        ensure!(
            status.success() || signal == Signal::SIGKILL,
            "the listener ended with {status}; it said:\n{says}"
        );
        Ok(says)
    }
}
