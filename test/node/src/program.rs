//! The node program, run as a person on the node would.
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Child;

/// The program with what it is started with.
#[derive(Clone, Debug)]
pub struct Program {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Where the host's root is to be mounted for it, in mounts of its own.
    host: Option<PathBuf>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Program {
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self {
            arguments,
            environment: Vec::new(),
            host: None,
        }
    }

    /// `watch`: serves the numbers of a containerd's node, and does nothing else.
    #[must_use]
    pub fn watching(socket: &Path) -> Self {
        Self::new(vec![
            "watch".to_owned(),
            "--no-kubernetes".to_owned(),
            "--host=/".to_owned(),
            format!("--containerd-socket={}", socket.display()),
        ])
    }

    /// Adds arguments.
    #[must_use]
    pub fn with<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Kills it at a step, or lets the step fail.
    #[must_use]
    pub fn fail_at(self, points: &str) -> Self {
        self.env("SAMPAN_FAIL_AT", points)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it mounts of its own, as a pod has, with the host's root at a directory.
    #[must_use]
    pub fn in_pod(mut self, host: &Path) -> Self {
        self.arguments.retain(|argument| argument != "--host=/");
        self.arguments.push(format!("--host={}", host.display()));
        self.host = Some(host.to_owned());
        self
    }

    /// The command, not started.
    ///
    /// # Errors
    /// When it was not built.
    pub fn command(&self) -> Result<tokio::process::Command> {
        let path: PathBuf = harness::built_dir()?.join("sampan-node");
        let mut command = match &self.host {
            None => tokio::process::Command::new(path),
            Some(host) => {
                let mut command = tokio::process::Command::new("unshare");
                command
                    .args(["--mount", "--propagation", "slave", "sh", "-c"])
                    .arg("mount --rbind / \"$0\" && exec \"$@\"")
                    .arg(host)
                    .arg(path);
                command
            }
        };
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts `run`, and waits until it says where it listens.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn started(&self) -> Result<(Child, SocketAddr)> {
        let mut running = self
            .clone()
            .with(["--listen=127.0.0.1:0"])
            .command()?
            .stderr(Stdio::piped())
            .spawn()
            .context("start the node program")?;
        let stderr = running.stderr.take().context("it has a standard error")?;
        let (address, _) = harness::said(stderr, "listening on ").await?;
        Ok((running, address.trim().parse()?))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self) -> Result<Ended> {
        let output = self
            .command()?
            .output()
            .await
            .context("run the node program")?;
        Ok(Ended {
            succeeded: output.status.success(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it, and it has to succeed; returns what it printed.
    ///
    /// # Errors
    /// What it said, if it did not.
    pub async fn succeeds(&self) -> Result<String> {
        let ended = self.run().await?;
        ensure!(ended.succeeded, "{:?}: {}", self.arguments, ended.stderr);
        Ok(ended.stdout)
    }

    /// Runs it, and it has to fail by itself; returns what it said.
    ///
    /// # Errors
    /// When it did not.
    pub async fn fails(&self) -> Result<String> {
        let ended = self.run().await?;
        ensure!(
            !ended.succeeded && ended.signal.is_none(),
            "{:?} did not fail: {ended:?}",
            self.arguments
        );
        Ok(ended.stderr)
    }

    /// Runs it, and it has to be killed.
    ///
    /// # Errors
    /// When it was not.
    pub async fn is_killed(&self) -> Result<()> {
        let ended = self.run().await?;
        ensure!(
            ended.signal == Some(9),
            "{:?} {:?} was not killed: {ended:?}",
            self.arguments,
            self.environment
        );
        Ok(())
    }
}
