use std::time::Duration;

use anyhow::{Context, Result, bail};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Request;

use crate::{Containerd, poll, unique};

/// containerd's task events since the subscription, of all namespaces, in the order of their arrival.
#[derive(Debug)]
pub struct Events {
    envelopes: mpsc::UnboundedReceiver<Envelope>,
    reader: JoinHandle<()>,
}

impl Events {
    pub(crate) async fn subscribe(containerd: &Containerd) -> Result<Self> {
        let mut client = EventsClient::new(containerd.channel().await?);
        let probe = format!("/harness/{}", unique());
        let filters = vec![
            r#"topic~="^/tasks/""#.to_owned(),
            format!(r#"topic=="{probe}""#),
        ];
        let (sender, mut envelopes) = mpsc::unbounded_channel();
        let mut subscriber = client.clone();
        // containerd answers a subscription only with the first event, so the call itself has to wait elsewhere.
        let reader = tokio::spawn(async move {
            let Ok(answer) = subscriber.subscribe(SubscribeRequest { filters }).await else {
                return;
            };
            let mut stream = answer.into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                if sender.send(envelope).is_err() {
                    return;
                }
            }
        });
        // The subscription holds when an event of our own comes back.
        poll::until(
            "the subscription to events",
            Duration::from_secs(10),
            async || {
                let event = Some(Any {
                    type_url: "google.protobuf.Empty".to_owned(),
                    value: Vec::new(),
                });
                let mut publish = Request::new(PublishRequest {
                    topic: probe.clone(),
                    event,
                });
                publish
                    .metadata_mut()
                    .insert("containerd-namespace", "default".parse()?);
                client.publish(publish).await.context("publish an event")?;
                Ok(envelopes.try_recv().ok())
            },
        )
        .await?;
        Ok(Self { envelopes, reader })
    }

    /// The next event of the container's task, at most `deadline` from now.
    ///
    /// # Errors
    /// When none comes in time, or containerd ends.
    pub async fn next_of(&mut self, id: &str, deadline: Duration) -> Result<Envelope> {
        let next = async {
            loop {
                let envelope = self
                    .envelopes
                    .recv()
                    .await
                    .context("containerd has ended its events")?;
                if is_of(&envelope, id) {
                    return Ok(envelope);
                }
            }
        };
        match tokio::time::timeout(deadline, next).await {
            Ok(envelope) => envelope,
            Err(_) => bail!("no event of {id} within {} s", deadline.as_secs()),
        }
    }

    /// Waits for an event of this topic for each of the containers' tasks, at most `deadline` from now.
    ///
    /// # Errors
    /// When there is none for one of them in time, or containerd ends.
    pub async fn each_of(
        &mut self,
        ids: impl IntoIterator<Item = &str>,
        topic: &str,
        deadline: Duration,
    ) -> Result<()> {
        let mut missing: Vec<&str> = ids.into_iter().collect();
        let end = tokio::time::Instant::now() + deadline;
        while !missing.is_empty() {
            let envelope = tokio::time::timeout_at(end, self.envelopes.recv())
                .await
                .with_context(|| format!("no {topic} of {missing:?}"))?
                .context("containerd has ended its events")?;
            if envelope.topic == topic {
                missing.retain(|id| !is_of(&envelope, id));
            }
        }
        Ok(())
    }

    /// The topics of the container's task up to and with `last`, as in `/tasks/delete`.
    ///
    /// # Errors
    /// As [`Events::next_of`], with the topics until then.
    pub async fn topics_until(
        &mut self,
        id: &str,
        last: &str,
        deadline: Duration,
    ) -> Result<Vec<String>> {
        let mut topics = Vec::new();
        while topics.last().is_none_or(|topic| topic != last) {
            let envelope = self
                .next_of(id, deadline)
                .await
                .with_context(|| format!("after {topics:?}"))?;
            topics.push(envelope.topic);
        }
        Ok(topics)
    }
}

/// Every task event has the container's id in clear.
fn is_of(envelope: &Envelope, id: &str) -> bool {
    let event = envelope.event.as_ref();
    event.is_some_and(|event| {
        let mut windows = event.value.windows(id.len());
        windows.any(|window| window == id.as_bytes())
    })
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
