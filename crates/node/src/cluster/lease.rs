//! One node at a time: a Lease whose holder may restart its containerd. It renews it for as long as that takes; when it
//! dies, the others wait until it was not renewed for the time that it names.
//!
//! Who waits goes by how long the Lease has not changed under its eyes, as client-go's leader election does, and not by the
//! times that are written in it: the clocks of nodes need not agree.
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::task::JoinHandle;

const NAME: &str = "sampan-node-restart";
/// How often others that wait look.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often it is renewed within the time after which others take it: all but one of these may fail.
const RENEWALS: u32 = 6;

/// Who asks for it, and where it is.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// This node's name.
    pub(super) node: String,
    /// How long after the last renewal others take it.
    pub(super) timeout: Duration,
}

/// The right to restart this node's containerd, renewed until it is given back. Dropped without that, it ends by itself.
#[derive(Default)]
pub struct Held(Option<Renewed>);

struct Renewed {
    seat: Seat,
    task: JoinHandle<()>,
}

impl fmt::Debug for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0.as_ref().map(|renewed| renewed.seat.node.as_str());
        out.debug_tuple("Held").field(&node).finish()
    }
}

impl Held {
    /// Waits until it is this node's turn.
    pub(super) async fn take(seat: Seat) -> Result<Self> {
        seat.take().await?;
        Ok(Self(Some(Renewed {
            task: tokio::spawn(seat.clone().keep()),
            seat,
        })))
    }

    /// Makes sure that it is held still: a process that was stopped for long, or did not reach the API, may have lost it, and
    /// waits for its turn again.
    ///
    /// # Errors
    /// What Kubernetes says.
    pub async fn assure(&mut self) -> Result<()> {
        if let Some(renewed) = &mut self.0 {
            renewed.seat.take().await?;
            if renewed.task.is_finished() {
                renewed.task = tokio::spawn(renewed.seat.clone().keep());
            }
        }
        Ok(())
    }

    /// Lets the next one. That it cannot be let is logged: the lease ends by itself.
    pub async fn give(mut self) {
        if let Some(renewed) = self.0.take() {
            renewed.task.abort();
            if let Err(error) = renewed.seat.give().await {
                tracing::warn!("give the lease back: {error:#}");
            }
        }
    }
}

impl Drop for Renewed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of writing it.
enum Written {
    Done,
    /// Another one was faster.
    Refused,
}

impl Seat {
    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn read(&self) -> Result<Option<Lease>> {
        let read = self.api().get_opt(NAME).await;
        read.context("ask for the lease")
    }

    /// Writes it. The version that was read goes along: if another has written meanwhile, this is refused.
    async fn write(&self, lease: &Lease) -> Result<Written> {
        let parameters = PostParams::default();
        let written = if lease.metadata.resource_version.is_none() {
            self.api().create(&parameters, lease).await
        } else {
            self.api().replace(NAME, &parameters, lease).await
        };
        match written {
            Ok(_) => Ok(Written::Done),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Written::Refused),
            Err(error) => Err(error).context("write the lease"),
        }
    }

    async fn take(&self) -> Result<()> {
        let mut watch = Watch::default();
        let mut told = false;
        loop {
            let mut lease = self.read().await?.unwrap_or_else(|| Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: None,
            });
            match watch.holder(&lease, Instant::now()) {
                Some(other) if other != self.node => {
                    if !told {
                        tracing::info!("waiting for {other}, which restarts its containerd");
                        told = true;
                    }
                }
                _ => {
                    lease.spec = Some(self.ours(lease.spec.take().unwrap_or_default()));
                    if let Written::Done = self.write(&lease).await? {
                        return Ok(());
                    }
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// What it says when it is ours, after what it has said.
    fn ours(&self, before: LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let spec = LeaseSpec {
            lease_duration_seconds: i32::try_from(self.timeout.as_secs()).ok(),
            renew_time: now.clone(),
            ..before
        };
        if spec.holder_identity.as_ref() == Some(&self.node) {
            return spec;
        }
        LeaseSpec {
            holder_identity: Some(self.node.clone()),
            acquire_time: now,
            lease_transitions: Some(spec.lease_transitions.map_or(0, |count| count + 1)),
            ..spec
        }
    }

    /// It, if it is ours.
    async fn held(&self) -> Result<Option<Lease>> {
        let lease = self.read().await?;
        let ours = |lease: &Lease| {
            let spec = lease.spec.as_ref();
            spec.and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.node)
        };
        Ok(lease.filter(ours))
    }

    /// Renews it until it is lost.
    async fn keep(self) {
        loop {
            tokio::time::sleep(self.timeout / RENEWALS).await;
            match self.renew().await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!("the lease was taken by another node before it was given back");
                    return;
                }
                Err(error) => tracing::warn!("renew the lease: {error:#}"),
            }
        }
    }

    /// Whether it is ours still.
    async fn renew(&self) -> Result<bool> {
        let Some(mut lease) = self.held().await? else {
            return Ok(false);
        };
        lease.spec = lease.spec.map(|spec| self.ours(spec));
        // Where this is refused, the next time tells who holds it.
        self.write(&lease).await.map(|_| true)
    }

    async fn give(&self) -> Result<()> {
        // A renewal that was on its way is the only other one that writes what is ours.
        while let Some(mut lease) = self.held().await? {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
            if let Written::Done = self.write(&lease).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What somebody who waits has seen.
#[derive(Debug, Default)]
struct Watch {
    /// The version that was there last, and since when.
    seen: Option<(String, Instant)>,
}

impl Watch {
    /// Who holds it, unless nobody has written it for the time that it names.
    fn holder(&mut self, lease: &Lease, now: Instant) -> Option<String> {
        let spec = lease.spec.as_ref()?;
        let holder = spec.holder_identity.clone();
        let holder = holder.filter(|name| !name.is_empty())?;
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => self.seen.insert((version, now)).1,
        };
        let seconds = spec.lease_duration_seconds.unwrap_or_default();
        let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        (now.saturating_duration_since(since) < timeout).then_some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(60),
                // Of a clock that is far behind.
                renew_time: Some(MicroTime(jiff::Timestamp::UNIX_EPOCH)),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_ends_when_it_is_renewed_no_longer() {
        let mut watch = Watch::default();
        let began = Instant::now();
        let mut holder = |name: &str, version: &str, seconds: u64| {
            watch.holder(&lease(name, version), began + Duration::from_secs(seconds))
        };
        assert_eq!(holder("one", "1", 0).as_deref(), Some("one"));
        assert_eq!(holder("one", "1", 59).as_deref(), Some("one"));
        assert_eq!(holder("one", "2", 60).as_deref(), Some("one"), "renewed");
        assert_eq!(holder("one", "2", 119).as_deref(), Some("one"));
        assert_eq!(holder("one", "2", 120), None);
        assert_eq!(holder("two", "3", 121).as_deref(), Some("two"));
    }

    #[test]
    fn nobody_holds_what_was_given_back() {
        let mut watch = Watch::default();
        let now = Instant::now();
        assert_eq!(watch.holder(&lease("", "1"), now), None);
        assert_eq!(watch.holder(&Lease::default(), now), None);
    }
}
