//! The node program killed at each of its steps, on a node of a cluster: the node stays ready and complete, and the next run
//! goes on from there. What becomes of files at every point in the middle of a step is for the tests of the program itself.
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster::{Cluster, NODE};
use e2e_tests::{Case, READY, Space, cases, eventually};
use harness::Tree;
use nix::sys::signal::Signal;

use crate::helm::prefix;
use crate::story::{neighbour, places};
use crate::{node, payload};

/// How long containerd may take to come back.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn cases() -> Vec<Case> {
    cases![the_node_stays_ready_whenever_the_program_is_killed]
        .into_iter()
        .map(Case::alone)
        .collect()
}

/// The program on the node itself.
struct Program<'a> {
    cluster: &'a Cluster,
    dir: PathBuf,
}

impl Program<'_> {
    /// Runs it, to be killed at a point if one is given; whether it succeeded, which it cannot when it was killed.
    async fn run(&self, arguments: &[&str], fail_at: Option<&str>) -> Result<(bool, String)> {
        let containerd = self.cluster.containerd();
        let mut command = tokio::process::Command::new(self.dir.join("sampan-node"));
        command
            .args(arguments)
            .arg(format!("--node-name={NODE}"))
            .arg("--host=/")
            .arg(format!("--payload={}", self.dir.join("payload").display()))
            .arg(format!("--prefix={}", prefix(self.cluster).display()))
            .arg(format!(
                "--containerd-socket={}",
                containerd.socket().display()
            ))
            .arg(format!(
                "--containerd-config={}",
                containerd.config().display()
            ))
            .args(["--restart=signal", "--lease-namespace=default"])
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true);
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

    /// The points before each step of an operation.
    async fn points(&self, operation: &str) -> Result<Vec<String>> {
        let (_, all) = self.run(&["status", "--steps"], None).await?;
        let points: Vec<String> = all
            .lines()
            .filter(|point| {
                point.starts_with(&format!("{operation}:")) && point.ends_with(":before")
            })
            .map(str::to_owned)
            .collect();
        ensure!(points.len() >= 5, "points of {operation}: {all}");
        Ok(points)
    }
}

pub(crate) async fn the_node_stays_ready_whenever_the_program_is_killed(
    space: Arc<Space>,
) -> Result<()> {
    let cluster = space.world().private_for("a program that is killed")?;
    let shipped = payload::shipped()?;
    let dir = cluster.containerd().scratch().dir().join("program");
    payload::unpack(&shipped, &dir)?;
    std::fs::create_dir_all(cluster.containerd().scratch().dir().join("opt"))?;
    let program = Program { cluster, dir };
    let before = Tree::of(&places(cluster))?;
    neighbour(&space).await?;

    let outcome = killed_everywhere(&space, &program).await;
    if outcome.is_err() {
        // The next test begins on a node where nothing is.
        drop(program.run(&["uninstall", "--force"], None).await);
    }
    outcome?;
    let left = before.difference(&Tree::of(&places(cluster))?);
    ensure!(left.is_empty(), "left behind:\n{left}");
    ensure!(
        node::ours(cluster).await?.is_empty(),
        "labels and annotations are gone"
    );
    space.delete_pod("neighbour").await
}

/// Installs and uninstalls, killed before each step of both.
async fn killed_everywhere(space: &Space, program: &Program<'_>) -> Result<()> {
    let cluster = program.cluster;
    for point in program.points("install").await? {
        let (finished, _) = program.run(&["install"], Some(&point)).await?;
        if finished {
            // What came before has brought the installation to an end: once more, from nothing.
            program.run(&["uninstall"], None).await?;
            let (finished, _) = program.run(&["install"], Some(&point)).await?;
            ensure!(!finished, "nothing was killed at {point}");
        }
        is_whole(space, cluster).await.context(point)?;
    }
    program.run(&["install"], None).await?;
    let labelled = node::ours(cluster).await?;
    ensure!(
        labelled.get(READY).is_some_and(|value| value == "true"),
        "{labelled:?}"
    );

    for point in program.points("uninstall").await? {
        let (finished, _) = program.run(&["uninstall"], Some(&point)).await?;
        if finished {
            program.run(&["install"], None).await?;
            let (finished, _) = program.run(&["uninstall"], Some(&point)).await?;
            ensure!(!finished, "nothing was killed at {point}");
        }
        is_whole(space, cluster).await.context(point)?;
    }
    program.run(&["uninstall"], None).await.map(drop)
}

/// The node is ready, its containerd answers, and its native pod runs on.
async fn is_whole(space: &Space, cluster: &Cluster) -> Result<()> {
    ensure!(
        cluster::is_ready(&node::node(cluster).await?),
        "the node is not ready"
    );
    // containerd may be on its way from or to the restart that the program asked for.
    let what = "containerd to execute something in a native pod";
    eventually(what, DEADLINE, async || {
        let executed = space.exec("neighbour", "app", &["/bin/true"]).await;
        Ok(executed.is_ok_and(|it| it.code == 0).then_some(()))
    })
    .await
}
