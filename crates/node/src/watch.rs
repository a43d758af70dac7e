//! Looks after the numbers and the incidents of this node: where they lie, and that people are told.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cluster::{Posted, Teller};
use crate::containerd::Live;
use crate::host::Host;
use crate::incidents::{Ledger, Spool};
use crate::metrics::Metrics;
use crate::settings::Settings;

/// How often is looked for incidents.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often containerd is asked where the shim keeps its files: it may have been started with another configuration.
const CERTAINTY: Duration = Duration::from_secs(60);

/// The one who looks.
#[derive(Debug)]
pub struct Watch {
    containerd: Live,
    host: Host,
    metrics: Arc<Metrics>,
    teller: Option<Teller>,
}

impl Watch {
    /// For the containerd that these settings mean. Without a teller nobody is told of incidents, and supervisors do not
    /// write any.
    #[must_use]
    pub fn new(
        settings: &Settings,
        host: &Host,
        metrics: &Arc<Metrics>,
        teller: Option<Teller>,
    ) -> Self {
        Self {
            containerd: Live::new(settings, host.clone()),
            host: host.clone(),
            metrics: Arc::clone(metrics),
            teller,
        }
    }

    /// Looks for ever.
    pub async fn run(self) {
        let mut run = None;
        let mut asked: Option<Instant> = None;
        let mut ledger = Ledger::new(Instant::now());
        loop {
            if run.is_none() || asked.is_none_or(|asked| asked.elapsed() >= CERTAINTY) {
                asked = Some(Instant::now());
                match self.find().await {
                    Ok(found) => run = Some(found),
                    Err(error) => tracing::debug!("find the run directory: {error:#}"),
                }
            }
            if let (Some(run), Some(teller)) = (&run, &self.teller) {
                self.tell(run, teller, &mut ledger).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Where the shim keeps its files, as they lie here.
    async fn find(&self) -> Result<PathBuf> {
        let config = self.containerd.shim_config().await?;
        let run = self.host.path(&config.run).context("find it")?;
        self.metrics
            .numbers
            .are_in(run.clone(), self.host.root().to_owned());
        Ok(run)
    }

    async fn tell(&self, run: &std::path::Path, teller: &Teller, ledger: &mut Ledger) {
        // Each time anew: it may have come, or gone.
        let incidents = match Spool::open(run) {
            Ok(Some(spool)) => spool.take(&self.metrics),
            // Nothing has run yet.
            Ok(None) => Vec::new(),
            Err(error) => {
                tracing::warn!("look for incidents: {error}");
                return;
            }
        };
        for incident in incidents {
            if !ledger.note(incident, Instant::now()) {
                self.metrics.incident_failures.inc();
            }
        }
        for (key, entry) in ledger.due(Instant::now()) {
            match teller.tell(&entry).await {
                Ok(Posted::As(name)) => {
                    self.metrics.incidents.inc();
                    ledger.written(&key, Some(name));
                }
                Ok(Posted::Nowhere) => ledger.forget(&key),
                Err(error) => {
                    self.metrics.incident_failures.inc();
                    tracing::warn!("write an event of a pod: {error:#}");
                    ledger.written(&key, None);
                }
            }
        }
    }
}
