//! The node program killed at each of its steps, on a node of a cluster: the node stays ready and complete, and the next run
//! goes on from there. What becomes of files at every point in the middle of a step is for the tests of the program itself.
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use cluster::Cluster;
use e2e_tests::{Case, READY, Space, cases};
use harness::Tree;

use crate::node;
use crate::program::Program;
use crate::story::{neighbour, places};

pub(crate) fn cases() -> Vec<Case> {
    cases![the_node_stays_ready_whenever_the_program_is_killed]
        .into_iter()
        .map(Case::alone)
        .collect()
}

/// The points before each step of an operation.
async fn points(program: &Program<'_>, operation: &str) -> Result<Vec<String>> {
    let (_, all) = program.run(&["status", "--steps"], None).await?;
    let points: Vec<String> = all
        .lines()
        .filter(|point| point.starts_with(&format!("{operation}:")) && point.ends_with(":before"))
        .map(str::to_owned)
        .collect();
    ensure!(points.len() >= 5, "points of {operation}: {all}");
    Ok(points)
}

pub(crate) async fn the_node_stays_ready_whenever_the_program_is_killed(
    space: Arc<Space>,
) -> Result<()> {
    let cluster = space.world().private_for("a program that is killed")?;
    let program = Program::new(cluster)?;
    let before = Tree::of(&places(cluster))?;
    neighbour(&space).await?;

    let outcome = killed_everywhere(&space, cluster, &program).await;
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
async fn killed_everywhere(space: &Space, cluster: &Cluster, program: &Program<'_>) -> Result<()> {
    for point in points(program, "install").await? {
        let (finished, _) = program.run(&["install"], Some(&point)).await?;
        if finished {
            // What came before has brought the installation to an end: once more, from nothing.
            program.run(&["uninstall"], None).await?;
            let (finished, _) = program.run(&["install"], Some(&point)).await?;
            ensure!(!finished, "nothing was killed at {point}");
        }
        node::is_whole(space, cluster).await.context(point)?;
    }
    program.run(&["install"], None).await?;
    let labelled = node::ours(cluster).await?;
    ensure!(
        labelled.get(READY).is_some_and(|value| value == "true"),
        "{labelled:?}"
    );

    for point in points(program, "uninstall").await? {
        let (finished, _) = program.run(&["uninstall"], Some(&point)).await?;
        if finished {
            program.run(&["install"], None).await?;
            let (finished, _) = program.run(&["uninstall"], Some(&point)).await?;
            ensure!(!finished, "nothing was killed at {point}");
        }
        node::is_whole(space, cluster).await.context(point)?;
    }
    program.run(&["uninstall"], None).await.map(drop)
}
