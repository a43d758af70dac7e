//! What is told over HTTP: whether this process is alive, whether the runtime works, and numbers.
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::numbers::Numbers;
use crate::state::Record;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Installed {
    shim: String,
    engine: String,
    containerd: String,
    hash: String,
}

/// All that is known of this node, shared with who asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ready: Gauge,
    installed: Family<Installed, Gauge>,
    /// Installations that succeeded.
    pub installs: Counter,
    /// Installations that failed.
    pub failures: Counter,
    /// How often something was not as it should be.
    pub drifts: Counter,
    /// Canaries that ran.
    pub canaries: Counter,
    /// Canaries that did not.
    pub canary_failures: Counter,
    canary_seconds: Gauge<f64, AtomicU64>,
    /// Programs that were compiled before a pod asked for them, or were there already.
    pub precompiled: Counter,
    /// Those that could not be.
    pub precompile_failures: Counter,
    /// Events of pods that were written, or written again.
    pub incidents: Counter,
    /// Those that could not be.
    pub incident_failures: Counter,
    /// What supervisors and runners count.
    pub numbers: Arc<Numbers>,
    /// Why it is not ready.
    reason: watch::Sender<Option<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut root = Registry::with_prefix("sampan");
        let numbers = Arc::new(Numbers::default());
        root.register_collector(Box::new(Arc::clone(&numbers)));
        let registry = root.sub_registry_with_prefix("node");
        let ready = Gauge::default();
        registry.register(
            "ready",
            "Whether the runtime works on this node",
            ready.clone(),
        );
        let installed = Family::default();
        registry.register("installed", "What is installed", installed.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let installs = counter(
            "installs",
            "Installations, upgrades and repairs that succeeded",
        );
        let failures = counter("install_failures", "Those that failed");
        let drifts = counter(
            "drifts",
            "How often what is installed was not as it should be",
        );
        let canaries = counter("canaries", "Wasm pods that were run to try the runtime");
        let canary_failures = counter("canary_failures", "Those that did not run as they should");
        let precompiled = counter(
            "precompiled",
            "Programs of images that were compiled before a pod asked for them, or were there already",
        );
        let precompile_failures = counter("precompile_failures", "Those that could not be");
        let incidents = counter(
            "pod_events",
            "Events of pods that were written, or written again",
        );
        let incident_failures = counter("pod_event_failures", "Those that could not be");
        let canary_seconds = Gauge::default();
        registry.register(
            "canary_seconds",
            "How long the last of them took, with all that it needs",
            canary_seconds.clone(),
        );
        Self {
            registry: root,
            ready,
            installed,
            installs,
            failures,
            drifts,
            canaries,
            canary_failures,
            canary_seconds,
            precompiled,
            precompile_failures,
            incidents,
            incident_failures,
            numbers,
            reason: watch::Sender::new(Some("it has just started".to_owned())),
        }
    }
}

impl Metrics {
    /// The runtime works.
    pub fn works(&self, record: &Record) {
        self.ready.set(1);
        self.installed.clear();
        self.installed
            .get_or_create(&Installed {
                shim: record.versions.shim.clone(),
                engine: record.versions.engine.clone(),
                containerd: record.containerd.clone(),
                hash: record.hash.clone(),
            })
            .set(1);
        self.set_reason(None);
    }

    /// It does not, for this reason.
    pub fn fails(&self, reason: &str) {
        self.ready.set(0);
        self.set_reason(Some(reason.to_owned()));
    }

    /// How long a canary took.
    pub fn took(&self, seconds: f64) {
        self.canary_seconds.set(seconds);
    }

    /// Why the runtime does not work; `None` if it does.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until the runtime works.
    pub async fn ready(&self) {
        // The sender lives as long as this.
        let _ = self.reason.subscribe().wait_for(Option::is_none).await;
    }

    /// All numbers, in OpenMetrics' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn set_reason(&self, reason: Option<String>) {
        self.reason.send_replace(reason);
    }
}
