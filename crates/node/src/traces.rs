//! The listener: takes spans from supervisors and exports them by OTLP (`docs/traces.md`).
//!
//! It is there where an endpoint is set by OpenTelemetry's own variables. While it is, a notice in the run directory tells
//! supervisors how to sample; without one they trace nothing.

mod export;
mod inlet;
mod missing;
mod own;
mod variables;

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use plan::trace::{Notice, Parcel, Service, Span};
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use self::export::Exporter;
use self::inlet::Inlet;
use self::missing::{Lost, Missing};
use self::variables::Variables;
use crate::host::Host;
use crate::settings::Settings;

/// Bytes of a packet; a parcel is shorter.
const PACKET: usize = 64 << 10;
/// How long what is left may take to be exported at the end.
const LAST: Duration = Duration::from_secs(5);

/// A span and whose it is; `None`: a supervisor's.
type Item = (Option<Arc<Service>>, Span);

/// A listener that runs.
#[derive(Debug)]
pub struct Traces {
    inlet: Inlet,
    end: oneshot::Sender<()>,
    export: JoinHandle<()>,
}

impl Traces {
    /// Begins to listen, if the environment says where spans are to go.
    ///
    /// # Errors
    /// When a variable says what nobody can do, or the socket cannot be made.
    pub fn begin(settings: &Settings) -> Result<Option<Self>> {
        let Some(variables) = Variables::read(|name| std::env::var(name).ok())? else {
            return Ok(None);
        };
        let exporter = Exporter::new(&variables, settings.node_name.as_deref())?;
        let run = Host::new(&settings.host)
            .path(&settings.run)
            .with_context(|| format!("find {}", settings.run.display()))?;
        Self::listen(&run, &variables, exporter).map(Some)
    }

    fn listen(run: &Path, variables: &Variables, exporter: Exporter) -> Result<Self> {
        let notice = Notice {
            sampler: variables.sampler,
        };
        let (inlet, socket) = Inlet::open(run, notice)?;
        let (queue, mut items) = mpsc::channel(variables.queue);
        let (end, ended) = oneshot::channel();
        let ended = ended.map(drop).shared();
        let lost = Arc::new(Lost::default());
        let reading = tokio::spawn(read(socket, queue, Arc::clone(&lost)));
        let mut batches = Batches {
            exporter,
            most: variables.batch,
            delay: variables.delay,
            missing: Missing::new(lost),
        };
        let export = tokio::spawn(async move {
            let late = ended.clone().then(|()| sleep(LAST));
            tokio::select! {
                () = batches.run(&mut items, ended) => {}
                () = late => {}
            }
            reading.abort();
            while items.try_recv().is_ok() {
                batches.missing.failed += 1;
            }
            batches.missing.say_the_rest();
        });
        tracing::info!(
            "traces go to {} ({})",
            variables.endpoint,
            variables.protocol
        );
        Ok(Self { inlet, end, export })
    }

    /// Takes no more, and exports what is there, for a moment.
    pub async fn end(self) {
        drop(self.inlet);
        let _ = self.end.send(());
        let _ = self.export.await;
    }
}

/// The command `traces`: nothing but a listener, until it is asked to end.
///
/// # Errors
/// As [`Traces::begin`], and where the environment says nothing.
pub async fn command(settings: &Settings) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
    let traces = Traces::begin(settings)?.context(
        "nothing says where traces are to go: set OTEL_EXPORTER_OTLP_ENDPOINT (and do not set OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER=none)",
    )?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    traces.end().await;
    Ok(())
}

/// Empties the socket whatever the collector does: supervisors never wait for that.
async fn read(socket: UnixDatagram, queue: mpsc::Sender<Item>, lost: Arc<Lost>) {
    let mut packet = vec![0; PACKET];
    loop {
        let length = match socket.recv(&mut packet).await {
            Ok(length) => length,
            Err(error) => {
                tracing::error!(%error, "no more spans are taken: cannot read from their socket");
                return;
            }
        };
        let Some(Parcel {
            of,
            lost: before,
            spans,
        }) = Parcel::read(&packet[..length])
        else {
            lost.unreadable.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let of = of.map(Arc::new);
        let mut missing = before;
        for span in spans {
            missing += u64::from(queue.try_send((of.clone(), span)).is_err());
        }
        lost.spans.fetch_add(missing, Ordering::Relaxed);
    }
}

struct Batches {
    exporter: Exporter,
    most: usize,
    delay: Duration,
    missing: Missing,
}

impl Batches {
    async fn run(
        &mut self,
        items: &mut mpsc::Receiver<Item>,
        mut ended: impl Future<Output = ()> + Unpin,
    ) {
        let mut ends = false;
        while !ends {
            let mut batch = Vec::new();
            let full = async {
                let Some(first) = items.recv().await else {
                    // Nobody reads any more: there is nothing but the end to wait for.
                    return pending().await;
                };
                batch.push(first);
                let later = Instant::now() + self.delay;
                while batch.len() < self.most {
                    match timeout_at(later, items.recv()).await {
                        Ok(Some(item)) => batch.push(item),
                        Ok(None) | Err(_) => return,
                    }
                }
            };
            tokio::select! {
                biased;
                () = &mut ended => ends = true,
                () = full => {}
            }
            if ends {
                // What supervisors have sent is taken along.
                items.close();
                while let Ok(item) = items.try_recv() {
                    batch.push(item);
                }
            }
            self.export(batch).await;
        }
    }

    async fn export(&mut self, batch: Vec<Item>) {
        // Until the collector has taken them: the end may come before.
        self.missing.failed += batch.len() as u64;
        for (of, spans) in by_service(batch) {
            let count = spans.len() as u64;
            match self.exporter.export(of.as_deref(), spans).await {
                Ok(()) => self.missing.failed -= count,
                // The others would wait for the same.
                Err(trouble) => {
                    self.missing.trouble = Some(trouble);
                    break;
                }
            }
        }
        self.missing.say();
    }
}

/// The spans of each service together, in the order in which they came.
fn by_service(batch: Vec<Item>) -> Vec<(Option<Arc<Service>>, Vec<Span>)> {
    let mut groups: Vec<(Option<Arc<Service>>, Vec<Span>)> = Vec::new();
    for (of, span) in batch {
        match groups.iter_mut().find(|(other, _)| *other == of) {
            Some((_, spans)) => spans.push(span),
            None => groups.push((of, vec![span])),
        }
    }
    groups
}
