//! One node at a time: a Lease whose holder may restart its containerd. It is renewed by nobody: it is long enough for
//! one restart and for taking it back, and a node that dies meanwhile keeps the others waiting no longer than that.
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};

use super::Kube;

const NAME: &str = "sampan-node-restart";
/// How often others that wait look.
const INTERVAL: Duration = Duration::from_secs(2);

fn api(kube: &Kube) -> Api<Lease> {
    Api::namespaced(kube.client.clone(), &kube.namespace)
}

pub(super) async fn take(kube: &Kube) -> Result<()> {
    let mut told = false;
    loop {
        match step(kube).await? {
            Held::Ours => return Ok(()),
            Held::By(other) => {
                if !told {
                    tracing::info!("waiting for {other}, which restarts its containerd");
                    told = true;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

pub(super) async fn give(kube: &Kube) -> Result<()> {
    let api = api(kube);
    let Some(mut lease) = api.get_opt(NAME).await.context("ask for the lease")? else {
        return Ok(());
    };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&kube.node) {
        return Ok(());
    }
    spec.holder_identity = None;
    spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
    // The version that was read goes along: if another has taken it meanwhile, this is refused.
    api.replace(NAME, &PostParams::default(), &lease)
        .await
        .map(drop)
        .context("write the lease")
}

enum Held {
    Ours,
    By(String),
}

async fn step(kube: &Kube) -> Result<Held> {
    let api = api(kube);
    let existing = api.get_opt(NAME).await.context("ask for the lease")?;
    let now = jiff::Timestamp::now();
    let ours = |transitions: i32| LeaseSpec {
        holder_identity: Some(kube.node.clone()),
        lease_duration_seconds: i32::try_from(kube.lease.as_secs()).ok(),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let parameters = PostParams::default();
    let written = match existing {
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(kube.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(ours(0)),
            };
            api.create(&parameters, &lease).await
        }
        Some(mut lease) => {
            let spec = lease.spec.take().unwrap_or_default();
            if let Some(holder) = holder(&spec, now)
                && holder != kube.node
            {
                return Ok(Held::By(holder));
            }
            lease.spec = Some(ours(spec.lease_transitions.unwrap_or_default() + 1));
            api.replace(NAME, &parameters, &lease).await
        }
    };
    match written {
        Ok(_) => Ok(Held::Ours),
        // Another one was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Held::By("another".to_owned())),
        Err(error) => Err(error).context("write the lease"),
    }
}

/// Who holds it, unless its time is over.
fn holder(spec: &LeaseSpec, now: jiff::Timestamp) -> Option<String> {
    let holder = spec
        .holder_identity
        .clone()
        .filter(|name| !name.is_empty())?;
    let renewed = spec.renew_time.as_ref()?.0;
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    let age = now.as_second() - renewed.as_second();
    (age < i64::from(seconds)).then_some(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_itself() {
        let now = jiff::Timestamp::now();
        let held = |name: &str, age: u64| {
            let spec = LeaseSpec {
                holder_identity: Some(name.to_owned()),
                lease_duration_seconds: Some(60),
                renew_time: Some(MicroTime(now - Duration::from_secs(age))),
                ..LeaseSpec::default()
            };
            holder(&spec, now)
        };
        assert_eq!(held("one", 10).as_deref(), Some("one"));
        assert_eq!(held("one", 61), None);
        assert_eq!(held("", 10), None);
        assert_eq!(holder(&LeaseSpec::default(), now), None);
    }
}
