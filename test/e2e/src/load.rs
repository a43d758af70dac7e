//! Load upon the pods behind a Service, led to them as a proxy on the node would: by the endpoints that are ready.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use tokio::task::JoinHandle;

use crate::{Answer, Space, eventually};

/// How often the endpoints are asked for; a proxy is told of changes at once, so this one is slower.
const INTERVAL: Duration = Duration::from_millis(100);

type Endpoints = Arc<Mutex<Vec<String>>>;

/// Clients that ask as fast as they are answered.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    watcher: JoinHandle<()>,
    clients: Vec<JoinHandle<Report>>,
}

/// What has come of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Bodies of the answers, and how often each came.
    pub answers: std::collections::BTreeMap<String, u64>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Load {
    /// Begins, with so many clients, when the Service has an endpoint that is ready.
    ///
    /// # Errors
    /// When it gets none within two minutes.
    pub async fn begin(
        space: &Space,
        service: &str,
        path: &'static str,
        clients: usize,
    ) -> Result<Self> {
        let slices: Api<EndpointSlice> = space.api();
        let endpoints = Endpoints::default();
        let service = service.to_owned();
        let found = eventually("an endpoint", crate::space::DEADLINE, async || {
            let found = ready(&slices, &service).await?;
            Ok((!found.is_empty()).then_some(found))
        })
        .await?;
        replace(&endpoints, found);

        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let watcher = tokio::spawn({
            let (endpoints, over) = (Arc::clone(&endpoints), Arc::clone(&over));
            async move {
                while !over.load(Ordering::Relaxed) {
                    // An API that does not answer leaves what was known.
                    if let Ok(found) = ready(&slices, &service).await {
                        replace(&endpoints, found);
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        });
        let clients = (0..clients)
            .map(|number| {
                let endpoints = Arc::clone(&endpoints);
                let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
                tokio::spawn(ask(endpoints, over, answered, path, number))
            })
            .collect();
        Ok(Self {
            over,
            answered,
            watcher,
            clients,
        })
    }

    /// How many requests were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it and says what has come of it.
    ///
    /// # Errors
    /// When a client has panicked.
    pub async fn end(self) -> Result<Report> {
        self.over.store(true, Ordering::Relaxed);
        self.watcher.await.context("the watcher of endpoints")?;
        let mut whole = Report::default();
        for report in join_all(self.clients).await {
            let report = report.context("a client of the load")?;
            for (body, count) in report.answers {
                *whole.answers.entry(body).or_default() += count;
            }
            whole.failures.extend(report.failures);
        }
        Ok(whole)
    }
}

async fn ask(
    endpoints: Endpoints,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    path: &'static str,
    number: usize,
) -> Report {
    let mut report = Report::default();
    let mut turn = number;
    while !over.load(Ordering::Relaxed) {
        let chosen = {
            let endpoints = endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            turn += 1;
            endpoints.get(turn % endpoints.len().max(1)).cloned()
        };
        let Some(chosen) = chosen else {
            report.failures.push("no endpoint is ready".to_owned());
            tokio::time::sleep(INTERVAL).await;
            continue;
        };
        match request(&chosen, path).await {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
                *report.answers.entry(answer.body).or_default() += 1;
            }
            Ok(answer) => report.failures.push(format!("{chosen}: {answer:?}")),
            Err(error) => report.failures.push(format!("{chosen}: {error:#}")),
        }
    }
    report
}

async fn request(address: &str, path: &str) -> Result<Answer> {
    let stream = tokio::net::TcpStream::connect((address, 8080))
        .await
        .context("connect")?;
    Answer::over(stream, path).await
}

/// Addresses of the endpoints of a Service that are ready.
async fn ready(slices: &Api<EndpointSlice>, service: &str) -> Result<Vec<String>> {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices
        .list(&of_service)
        .await
        .with_context(|| format!("list the endpoints of {service}"))?;
    Ok(slices
        .into_iter()
        .flat_map(|slice| slice.endpoints)
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|it| it.ready) == Some(true)
        })
        .flat_map(|endpoint| endpoint.addresses)
        .collect())
}

fn replace(endpoints: &Endpoints, found: Vec<String>) {
    *endpoints.lock().unwrap_or_else(PoisonError::into_inner) = found;
}
