//! An installation that finds no room, nothing to write to, a configuration that is wrong already, or a containerd that does
//! not come back, on a node of a cluster: the node stays ready with the configuration that it had, the cluster is told why,
//! and the next run installs. What becomes of files in each of these cases is for the tests of the program itself.
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use cluster::{Cluster, NODE};
use e2e_tests::{Case, READY, Space, cases};
use harness::{Disk, Tree};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use crate::helm::prefix;
use crate::node;
use crate::program::Program;
use crate::story::{neighbour, places};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        no_room_for_binaries,
        no_room_for_the_configuration,
        a_disk_that_is_read_only,
        a_configuration_that_is_wrong_already,
        a_containerd_that_does_not_come_back,
    ]
    .into_iter()
    .map(Case::alone)
    .collect()
}

/// A node with something wrong.
struct Broken<'a> {
    space: &'a Space,
    cluster: &'a Cluster,
    program: Program<'a>,
}

impl Broken<'_> {
    /// What containerd reads its configuration from.
    fn configuration(&self) -> Result<Tree> {
        let containerd = self.cluster.containerd();
        Tree::of(&[containerd.config(), self.conf_d()])
    }

    fn conf_d(&self) -> PathBuf {
        self.cluster.containerd().scratch().dir().join("conf.d")
    }

    /// Nothing can be installed, for this reason, and nothing is worse than it is.
    async fn stays(&self, arguments: &[&str], why: &[&str]) -> Result<()> {
        self.is_as(&self.configuration()?, arguments, why).await
    }

    /// As [`Broken::stays`], with the configuration as it was before.
    async fn is_as(&self, before: &Tree, arguments: &[&str], why: &[&str]) -> Result<()> {
        let said = self.program.fails(arguments).await?;
        let difference = before.difference(&self.configuration()?);
        ensure!(difference.is_empty(), "{difference}");
        let events: Api<Event> = Api::namespaced(self.cluster.client(), "default");
        let of_node = format!("involvedObject.name={NODE},reason=SampanInstallFailed");
        let events = events.list(&ListParams::default().fields(&of_node)).await?;
        let newest = events.items.into_iter().max_by_key(|event| {
            let time = event.event_time.as_ref();
            time.map(|time| time.0)
        });
        let told = newest.and_then(|event| event.message).unwrap_or_default();
        for part in why {
            ensure!(said.contains(part), "no `{part}` in {said}");
            ensure!(told.contains(part), "no `{part}` in the event {told}");
        }
        ensure!(node::ours(self.cluster).await?.is_empty(), "no label");
        node::is_whole(self.space, self.cluster).await
    }
}

/// Does something to the node, undoes it, and lets the next run install.
async fn repaired(space: &Space, act: impl AsyncFnOnce(&Broken<'_>) -> Result<()>) -> Result<()> {
    let cluster = space.world().private_for("a node that breaks")?;
    let program = Program::new(cluster)?;
    let before = Tree::of(&places(cluster))?;
    neighbour(space).await?;
    let broken = Broken {
        space,
        cluster,
        program,
    };
    let outcome = async {
        act(&broken).await?;
        broken.program.run(&["install"], None).await?;
        let ours = node::ours(cluster).await?;
        let ready = ours.get(READY).is_some_and(|value| value == "true");
        ensure!(ready, "{ours:?}");
        node::is_whole(space, cluster).await
    }
    .await;
    // The next test begins on a node where nothing is.
    let gone = broken.program.run(&["uninstall", "--force"], None).await;
    outcome?;
    gone?;
    let left = before.difference(&Tree::of(&places(cluster))?);
    ensure!(left.is_empty(), "left behind:\n{left}");
    space.delete_pod("neighbour").await
}

pub(crate) async fn no_room_for_binaries(space: Arc<Space>) -> Result<()> {
    repaired(&space, async |broken: &Broken<'_>| {
        let _disk = Disk::tmpfs(&prefix(broken.cluster), "size=1m")?;
        let why = ["step install:place", "No space left"];
        broken.stays(&["install"], &why).await
    })
    .await
}

pub(crate) async fn no_room_for_the_configuration(space: Arc<Space>) -> Result<()> {
    repaired(&space, async |broken: &Broken<'_>| {
        let disk = Disk::tmpfs(&broken.conf_d(), "size=16k")?;
        disk.fill()?;
        let why = ["step install:configure", "No space left", "rolled back"];
        broken.stays(&["install"], &why).await
    })
    .await
}

pub(crate) async fn a_disk_that_is_read_only(space: Arc<Space>) -> Result<()> {
    repaired(&space, async |broken: &Broken<'_>| {
        for (dir, why) in [
            (prefix(broken.cluster), &["Read-only"][..]),
            (
                broken.conf_d(),
                &["step install:configure", "Read-only", "rolled back"],
            ),
        ] {
            let disk = Disk::tmpfs(&dir, "size=64k")?;
            disk.read_only()?;
            broken.stays(&["install"], why).await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn a_configuration_that_is_wrong_already(space: Arc<Space>) -> Result<()> {
    repaired(&space, async |broken: &Broken<'_>| {
        let containerd = broken.cluster.containerd();
        let (path, pid) = (containerd.config(), containerd.pid());
        let aside = path.with_extension("good");
        // As a whole, since its times count too.
        fs::rename(&path, &aside)?;
        let good = fs::read_to_string(&aside)?;
        let outcome = async {
            for (bad, part) in [
                (format!("{good}\n[broken\n"), "parse the configuration"),
                (
                    format!("oom_score = 'much'\n{good}"),
                    "containerd does not read",
                ),
            ] {
                fs::write(&path, bad)?;
                let why = [part, "nothing was touched"];
                broken.stays(&["install"], &why).await?;
            }
            ensure!(containerd.pid() == pid, "it was not restarted");
            Ok(())
        }
        .await;
        fs::rename(&aside, &path)?;
        outcome
    })
    .await
}

pub(crate) async fn a_containerd_that_does_not_come_back(space: Arc<Space>) -> Result<()> {
    repaired(&space, async |broken: &Broken<'_>| {
        let containerd = broken.cluster.containerd();
        let drop_in = broken.program.drop_in();
        containerd.refuse(&drop_in, "runtimes.sampan]");
        let install = ["install", "--restart-timeout=3"];
        let before = broken.configuration()?;
        let why = ["has not come back", "rolled back"];
        let outcome = async {
            broken.is_as(&before, &install, &why).await?;
            // The same, and the program dies while it waits: the next run brings containerd back.
            let point = "install:restart:after";
            let (finished, _) = broken.program.run(&install, Some(point)).await?;
            ensure!(!finished, "nothing was killed at {point}");
            broken.is_as(&before, &install, &why).await
        }
        .await;
        containerd.accept();
        outcome
    })
    .await
}
