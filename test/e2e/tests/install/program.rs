//! The node program on a node itself, as a person there would run it.
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster::{Cluster, NODE};
use e2e_tests::eventually;
use harness::Containerd;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use crate::payload;

/// How long one that runs may take to say something, or to end.
const DEADLINE: Duration = Duration::from_secs(120);

/// The program with the node that it works on.
pub(crate) struct Program<'a> {
    cluster: &'a Cluster,
    containerd: &'a Containerd,
    node: &'a str,
    /// Where it and what it installs lie.
    dir: PathBuf,
    /// Where the lease is.
    namespace: &'a str,
}

impl<'a> Program<'a> {
    /// On the cluster's own node.
    pub(crate) fn new(cluster: &'a Cluster) -> Result<Self> {
        let containerd = cluster.containerd();
        let dir = containerd.scratch().dir().join("program");
        payload::unpack(&payload::shipped()?, &dir)?;
        let program = Self {
            cluster,
            containerd,
            node: NODE,
            dir,
            namespace: "default",
        };
        program.with_opt()
    }

    /// The same program on another node, whose containerd this is.
    pub(crate) fn on(&self, node: &'a str, containerd: &'a Containerd) -> Result<Self> {
        let program = Self {
            containerd,
            node,
            dir: self.dir.clone(),
            ..*self
        };
        program.with_opt()
    }

    /// With the lease in a namespace of the test's own.
    pub(crate) fn leasing_in(mut self, namespace: &'a str) -> Self {
        self.namespace = namespace;
        self
    }

    /// Nodes have it, and whoever takes all away leaves it.
    fn with_opt(self) -> Result<Self> {
        let opt = self.containerd.scratch().dir().join("opt");
        fs::create_dir_all(&opt).with_context(|| format!("create {}", opt.display()))?;
        Ok(self)
    }

    /// The node's name.
    pub(crate) fn node(&self) -> &str {
        self.node
    }

    /// The node's containerd.
    pub(crate) fn containerd(&self) -> &Containerd {
        self.containerd
    }

    /// The file by which it configures containerd.
    pub(crate) fn drop_in(&self) -> PathBuf {
        self.containerd.scratch().dir().join("conf.d/sampan.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let dir = self.containerd.scratch().dir();
        let mut command = Command::new(self.dir.join("sampan-node"));
        command
            .args(arguments)
            .arg(format!("--node-name={}", self.node))
            .arg("--host=/")
            .arg(format!("--payload={}", self.dir.join("payload").display()))
            .arg(format!("--prefix={}", dir.join("opt/sampan").display()))
            .arg(format!(
                "--containerd-socket={}",
                self.containerd.socket().display()
            ))
            .arg(format!(
                "--containerd-config={}",
                self.containerd.config().display()
            ))
            .arg("--restart=signal")
            .arg(format!("--lease-namespace={}", self.namespace))
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it, to be killed at a point if one is given; whether it succeeded, which it cannot when it was killed.
    pub(crate) async fn run(
        &self,
        arguments: &[&str],
        fail_at: Option<&str>,
    ) -> Result<(bool, String)> {
        let mut command = self.command(arguments);
        if let Some(point) = fail_at {
            command.arg(format!("--fail-at={point}"));
        }
        let output = command.output().await.context("run the node program")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match (output.status.signal(), fail_at) {
            (Some(signal), Some(_)) if signal == Signal::SIGKILL as i32 => Ok((false, said)),
            (None, _) if output.status.success() => {
                Ok((true, String::from_utf8_lossy(&output.stdout).into_owned()))
            }
            _ => bail!(
                "sampan-node {} (to be killed at {fail_at:?}) ended with {}: {said}",
                arguments.join(" "),
                output.status
            ),
        }
    }

    /// Runs it, and it has to fail by itself; returns what it said.
    pub(crate) async fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().await;
        let output = output.context("run the node program")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code().is_some_and(|code| code != 0),
            "sampan-node {} ended with {}: {said}",
            arguments.join(" "),
            output.status
        );
        Ok(said)
    }

    /// Starts it.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Result<Running> {
        let log = self.dir.join(format!("{}.log", self.node));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = self
            .command(arguments)
            .stdout(output.try_clone().context("share a log")?)
            .stderr(output)
            .spawn()
            .context("start the node program")?;
        Ok(Running {
            child,
            log,
            node: self.node.to_owned(),
        })
    }
}

/// One that was started, and is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    node: String,
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it says something.
    pub(crate) async fn says(&mut self, what: &str) -> Result<()> {
        let wanted = format!("the program on {} to say `{what}`", self.node);
        eventually(&wanted, DEADLINE, async || {
            if self.said().contains(what) {
                return Ok(Some(()));
            }
            self.is_on_its_way().map(|()| None)
        })
        .await
    }

    /// It has not ended.
    pub(crate) fn is_on_its_way(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the program on {} ended with {status}: {}",
                self.node,
                self.said()
            );
        }
        Ok(())
    }

    /// Waits for its end, which has to be a success.
    pub(crate) async fn succeeds(mut self) -> Result<()> {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status = ended.with_context(|| {
            format!("the program on {} does not end: {}", self.node, self.said())
        })??;
        ensure!(
            status.success(),
            "the program on {} ended with {status}: {}",
            self.node,
            self.said()
        );
        Ok(())
    }
}
