//! What the DaemonSet runs: install, keep, and go when asked.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::OwnedMutexGuard;

use crate::change::Node;
use crate::cluster::{Cluster, Reason, View};
use crate::containerd::Containerd;
use crate::host::Host;
use crate::keep::{Look, Seen};
use crate::metrics::Metrics;
use crate::payload::Payload;
use crate::precompile::{Precompiler, Turn};
use crate::serve::serve;
use crate::settings::{OnExit, Settings, Uninstall};
use crate::traces::Traces;
use crate::watch::Watch;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often it is looked whether a change that is to end waits for others.
const GLANCE: Duration = Duration::from_millis(100);
/// How often a look may fail in a row before the label goes: containerd may be restarting.
const PATIENCE: u32 = 3;

/// What woke the loop.
enum Woken {
    Time,
    End,
}

/// Runs until it is asked to end.
///
/// # Errors
/// When it cannot begin, or could not take all away as it was told to at its end. What fails in between is tried again.
pub async fn run<C: Containerd>(node: &Node<C>) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let metrics = Arc::new(Metrics::default());
    let address = serve(node.settings.listen, Arc::clone(&metrics)).await?;
    tracing::info!("listening on {address}");
    let teller = node.cluster.teller();
    tokio::spawn(Watch::new(&node.settings, &node.host, &metrics, teller).run());
    // Whether the node has the runtime does not hang on a collector.
    let traces = Traces::begin(&node.settings).unwrap_or_else(|error| {
        tracing::error!("nothing is traced: {error:#}");
        None
    });
    let payload = Payload::read(&node.settings.payload)?;
    let turn = Turn::default();
    if node.settings.precompile {
        let ahead = Precompiler::new(&node.settings, &node.host, &metrics, &turn);
        tokio::spawn(ahead.run());
    }
    let mut keeper = Keeper {
        node,
        payload,
        metrics,
        turn: Arc::clone(&turn),
        seen: Seen::default(),
        failures: 0,
        blind: 0,
        last_canary: Instant::now(),
        gone: false,
    };
    // A request from before this process was for another one.
    let mut pause = match node.cluster.answer_request(None).await {
        Ok(()) => Duration::ZERO,
        Err(error) => {
            tracing::warn!("{error:#}");
            FIRST_PAUSE
        }
    };
    loop {
        if let Woken::End = wait(pause, &mut end, &mut interrupt).await {
            break;
        }
        let mut turn = std::pin::pin!(keeper.turn());
        let ended = tokio::select! {
            biased;
            next = &mut turn => {
                pause = next;
                false
            }
            _ = end.recv() => true,
            _ = interrupt.recv() => true,
        };
        if ended {
            // What is begun is finished, unless it waits for others; a kill by an impatient kubelet is repaired by the
            // next process.
            while !node.waiting.get() {
                tokio::select! {
                    biased;
                    _ = &mut turn => break,
                    () = tokio::time::sleep(GLANCE) => {}
                }
            }
            break;
        }
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    node.waiting.set(false);
    node.settle().await.context("take back what was given up")?;
    if node.settings.on_exit == OnExit::Uninstall && !keeper.gone {
        let _turn = turn.lock().await;
        node.uninstall(node.settings.uninstall(Uninstall::default()))
            .await?;
    }
    Ok(())
}

/// Serves this node's numbers and tells of its pods, and changes nothing, until it is asked to end.
///
/// # Errors
/// When it cannot begin.
pub async fn watch(settings: &Settings, cluster: &Cluster) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let metrics = Arc::new(Metrics::default());
    let address = serve(settings.listen, Arc::clone(&metrics)).await?;
    tracing::info!("listening on {address}");
    let host = Host::new(&settings.host);
    tokio::spawn(Watch::new(settings, &host, &metrics, cluster.teller()).run());
    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn wait(pause: Duration, end: &mut Signal, interrupt: &mut Signal) -> Woken {
    tokio::select! {
        biased;
        _ = end.recv() => Woken::End,
        _ = interrupt.recv() => Woken::End,
        () = tokio::time::sleep(pause) => Woken::Time,
    }
}

struct Keeper<'a, C> {
    node: &'a Node<C>,
    payload: Payload,
    metrics: Arc<Metrics>,
    /// Held while the node is changed.
    turn: Turn,
    seen: Seen,
    /// Installations that failed in a row.
    failures: u32,
    /// Looks that failed in a row.
    blind: u32,
    last_canary: Instant,
    /// Whether all was taken away because somebody asked: nothing is installed again then.
    gone: bool,
}

impl<C: Containerd> Keeper<'_, C> {
    /// One look, and what follows from it; returns how long to wait until the next.
    async fn turn(&mut self) -> Duration {
        let interval = Duration::from_secs(self.node.settings.check_interval);
        let view = match self.node.cluster.view().await {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!("{error:#}");
                View::default()
            }
        };
        if let Some(how) = view.request.as_deref().and_then(Uninstall::of_request) {
            self.go(how).await;
            return interval;
        }
        if self.gone {
            return interval;
        }
        match self.node.look(&self.payload, &mut self.seen).await {
            Ok(Look::Fine) => {
                self.blind = 0;
                if self.canary().await {
                    if view.lost {
                        self.relabel().await;
                    }
                    if let Err(error) = self.node.tidy().await {
                        tracing::warn!("remove old binaries: {error:#}");
                    }
                    interval
                } else {
                    self.install().await.unwrap_or(interval)
                }
            }
            Ok(Look::Due(why)) => {
                tracing::info!("{why}: installing");
                self.install().await.unwrap_or(interval)
            }
            Ok(Look::Drift(what)) => {
                self.metrics.drifts.inc();
                self.node
                    .cluster
                    .tell(Reason::Drift, &format!("{what}: repairing"))
                    .await;
                self.install().await.unwrap_or(interval)
            }
            Err(error) => {
                self.blind += 1;
                let why = format!("{error:#}");
                tracing::warn!("look at what is installed: {why}");
                if self.blind >= PATIENCE {
                    self.metrics.fails(&why);
                    self.unlabel().await;
                    // What began containerd's trouble may have been an interrupted change of ours.
                    return self.install().await.unwrap_or(interval);
                }
                FIRST_PAUSE
            }
        }
    }

    /// Tries the runtime if it is time; whether all is well.
    async fn canary(&mut self) -> bool {
        let Some(record) = self.node.state.record().ok().flatten() else {
            return false;
        };
        let due = Duration::from_secs(self.node.settings.canary_interval);
        if self.last_canary.elapsed() < due {
            self.metrics.works(&record);
            return true;
        }
        let began = Instant::now();
        self.metrics.canaries.inc();
        let tried = self.node.verify(&record, true).await;
        self.last_canary = Instant::now();
        self.metrics.took(began.elapsed().as_secs_f64());
        match tried {
            Ok(()) => {
                self.metrics.works(&record);
                true
            }
            Err(error) => {
                let why = format!("{error:#}");
                self.metrics.canary_failures.inc();
                self.metrics.fails(&why);
                self.unlabel().await;
                self.node
                    .cluster
                    .tell(Reason::Drift, &format!("{why}: repairing"))
                    .await;
                false
            }
        }
    }

    /// Waits until nothing is compiled ahead, which does not begin again as long as the result lives.
    async fn turn_of_its_own(&self) -> OwnedMutexGuard<()> {
        self.node.waiting.set(true);
        let turn = Arc::clone(&self.turn).lock_owned().await;
        self.node.waiting.set(false);
        turn
    }

    /// Installs; how long to wait if that failed.
    async fn install(&mut self) -> Option<Duration> {
        let _turn = self.turn_of_its_own().await;
        let began = Instant::now();
        match self.node.install(&self.payload).await {
            Ok(record) => {
                self.failures = 0;
                self.blind = 0;
                self.seen = Seen::default();
                self.last_canary = Instant::now();
                self.metrics.installs.inc();
                self.metrics.works(&record);
                tracing::info!("installed in {:.1} s", began.elapsed().as_secs_f64());
                None
            }
            Err(error) => {
                let pause = pause(self.failures);
                self.failures += 1;
                self.metrics.failures.inc();
                self.metrics.fails(&format!("{error:#}"));
                tracing::error!("install: {error:#}; trying again in {} s", pause.as_secs());
                Some(pause)
            }
        }
    }

    /// Takes all away because somebody has asked by the node's annotation.
    async fn go(&mut self, how: Uninstall) {
        let _turn = self.turn_of_its_own().await;
        match self.node.uninstall(how).await {
            Ok(()) => {
                self.gone = true;
                self.metrics.fails("it was taken away, as was asked for");
            }
            Err(error) => {
                let answer = format!("failed: {error:#}");
                tracing::error!("uninstall: {error:#}");
                if let Err(error) = self.node.cluster.answer_request(Some(&answer)).await {
                    tracing::warn!("{error:#}");
                }
            }
        }
    }

    /// Puts the label back that somebody has taken off, or that went with the node's registration.
    async fn relabel(&self) {
        let Ok(Some(record)) = self.node.state.record() else {
            return;
        };
        tracing::info!("the node has lost its label: labelling it again");
        if let Err(error) = self.node.cluster.label(&record).await {
            tracing::warn!("{error:#}");
        }
    }

    async fn unlabel(&self) {
        if let Err(error) = self.node.cluster.unlabel().await {
            tracing::warn!("{error:#}");
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << failures.min(10))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_growing() {
        let seconds: Vec<u64> = (0..9).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
