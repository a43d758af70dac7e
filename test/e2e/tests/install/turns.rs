//! One node at a time restarts its containerd: two nodes of one cluster, each with a containerd and a node program of its
//! own. The second has no kubelet, which the program does not ask for.
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e_tests::{Case, READY, Space, cases, eventually};
use harness::Containerd;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::program::{Program, Running};

/// The other node's name.
const SECOND: &str = "second";
/// What the lease is called.
const LEASE: &str = "sampan-node-restart";
/// How long after the last sign of life of its holder others take it.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How long one that waits may need to notice.
const NOTICE: Duration = Duration::from_secs(3);
/// How long a program may take to get somewhere.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn cases() -> Vec<Case> {
    cases![
        the_second_waits_until_the_first_is_done,
        a_node_that_dies_holds_nobody_up_for_long,
    ]
    .into_iter()
    .map(Case::alone)
    .collect()
}

/// An installation with a lease that ends soon, and time for a containerd that stays away.
const INSTALL: [&str; 3] = ["install", "--lease-timeout=6", "--restart-timeout=100"];

/// The first has the lease for longer than that lasts without renewal, and the second waits all the time.
async fn in_turn(space: &Space, first: &Program<'_>, second: &Program<'_>) -> Result<()> {
    let untouched = second.containerd().pid();
    let watch = Watch::begin([first, second]);
    first
        .containerd()
        .refuse(&first.drop_in(), "runtimes.sampan]");
    let mut one = first.begin(&INSTALL)?;
    restarts(space, first, &mut one).await?;

    let mut two = second.begin(&INSTALL)?;
    let waits = format!(
        "waiting for {}, which restarts its containerd",
        first.node()
    );
    two.says(&waits).await?;
    let began = Instant::now();
    eventually("more time than a lease lasts", DEADLINE, async || {
        one.is_on_its_way()?;
        two.is_on_its_way()?;
        let holder = holder(space).await?;
        ensure!(holder.as_deref() == Some(first.node()), "{holder:?}");
        Ok((began.elapsed() > TIMEOUT + NOTICE).then_some(()))
    })
    .await?;
    ensure!(second.containerd().pid() == untouched);

    first.containerd().accept();
    one.succeeds().await?;
    two.succeeds().await?;
    ensure!(second.containerd().pid() != untouched, "it was restarted");
    ensure!(holder(space).await?.is_none(), "the lease is given back");
    watch.end().await
}

pub(crate) async fn the_second_waits_until_the_first_is_done(space: Arc<Space>) -> Result<()> {
    on_two_nodes(&space, in_turn).await
}

/// The first is killed when it has the lease; its next run has to wait for the second.
async fn after_a_death(space: &Space, first: &Program<'_>, second: &Program<'_>) -> Result<()> {
    let untouched = first.containerd().pid();
    let watch = Watch::begin([first, second]);
    let (finished, _) = first.run(&INSTALL, Some("install:restart:before")).await?;
    ensure!(!finished, "it was killed");
    let left = lease(space).await?;
    ensure!(left.holder_identity.as_deref() == Some(first.node()));

    second
        .containerd()
        .refuse(&second.drop_in(), "runtimes.sampan]");
    let mut two = second.begin(&INSTALL)?;
    two.says(&format!("waiting for {}", first.node())).await?;
    let taken = restarts(space, second, &mut two).await?;
    let since = |spec: &LeaseSpec| {
        let times = [spec.acquire_time.as_ref(), spec.renew_time.as_ref()];
        times.map(|time| time.map(|time| time.0))
    };
    let ([Some(taken), _], [_, Some(left)]) = (since(&taken), since(&left)) else {
        anyhow::bail!("no times: {left:?} {taken:?}");
    };
    let waited = Duration::try_from(taken.duration_since(left)).context("it came later")?;
    ensure!(waited >= TIMEOUT, "it has waited {waited:?}");

    let mut one = first.begin(&INSTALL)?;
    one.says(&format!("waiting for {}", second.node())).await?;
    ensure!(first.containerd().pid() == untouched);
    second.containerd().accept();
    two.succeeds().await?;
    one.succeeds().await?;
    ensure!(first.containerd().pid() != untouched, "it was restarted");
    ensure!(holder(space).await?.is_none(), "the lease is given back");
    watch.end().await
}

pub(crate) async fn a_node_that_dies_holds_nobody_up_for_long(space: Arc<Space>) -> Result<()> {
    on_two_nodes(&space, after_a_death).await
}

/// Gives the cluster a second node and does something with both, after which they are installed; takes all away again.
async fn on_two_nodes(
    space: &Space,
    act: impl AsyncFnOnce(&Space, &Program<'_>, &Program<'_>) -> Result<()>,
) -> Result<()> {
    let cluster = space.world().private_for("a second node")?;
    let other = Containerd::builder().without_sampan().kept();
    let other = other.start().await.context("start the second containerd")?;
    let first = Program::new(cluster)?.leasing_in(space.name());
    let second = first.on(SECOND, &other)?;
    let nodes: Api<Node> = Api::all(cluster.client());
    let node = serde_json::from_value(json!({
        "metadata": { "name": SECOND },
        "spec": { "unschedulable": true },
    }))?;
    nodes
        .create(&PostParams::default(), &node)
        .await
        .context("create the second node")?;

    let mut outcome = async {
        act(space, &first, &second).await?;
        for program in [&first, &second] {
            let node = nodes.get(program.node()).await?;
            let ready = node.metadata.labels.unwrap_or_default().remove(READY);
            ensure!(ready.as_deref() == Some("true"), "{}", program.node());
        }
        anyhow::Ok(())
    }
    .await;
    for program in [&first, &second] {
        program.containerd().accept();
        let gone = program.run(&["uninstall", "--force"], None).await;
        outcome = outcome.and(gone.map(drop));
    }
    let deleted = nodes.delete(SECOND, &DeleteParams::default()).await;
    outcome?;
    deleted.context("delete the second node")?;
    other.assert_clean().await
}

/// Waits until a program has ended its containerd, for which it has to have the lease; returns what that says then.
async fn restarts(
    space: &Space,
    program: &Program<'_>,
    running: &mut Running,
) -> Result<LeaseSpec> {
    let what = format!("the containerd of {} to be away", program.node());
    eventually(&what, DEADLINE, async || {
        running.is_on_its_way()?;
        if !is_away(program.containerd()).await {
            return Ok(None);
        }
        // Asked for afterwards: nobody gives it back before the end.
        let lease = lease(space).await?;
        let holder = lease.holder_identity.as_deref();
        ensure!(holder == Some(program.node()), "{holder:?} has the lease");
        Ok(Some(lease))
    })
    .await
}

async fn lease(space: &Space) -> Result<LeaseSpec> {
    let leases: Api<Lease> = space.api();
    let lease = leases.get(LEASE).await.context("ask for the lease")?;
    lease.spec.context("it says something")
}

async fn holder(space: &Space) -> Result<Option<String>> {
    Ok(lease(space).await?.holder_identity)
}

async fn is_away(containerd: &Containerd) -> bool {
    UnixStream::connect(containerd.socket()).await.is_err()
}

/// Looks all the time whether both containerds are away.
struct Watch {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Watch {
    fn begin(programs: [&Program<'_>; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let sockets: [PathBuf; 2] = programs.map(|program| program.containerd().socket());
        let seen = Arc::clone(&over);
        let task = tokio::spawn(async move {
            let (began, mut both) = (Instant::now(), Vec::new());
            while !seen.load(Ordering::Relaxed) {
                let [one, two] = &sockets;
                if UnixStream::connect(one).await.is_err()
                    && UnixStream::connect(two).await.is_err()
                {
                    both.push(began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            both
        });
        Self { over, task }
    }

    /// They never were.
    async fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        let both = self.task.await.context("the watch")?;
        ensure!(both.is_empty(), "both were away at {both:?}");
        Ok(())
    }
}
