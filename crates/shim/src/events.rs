//! Events to containerd, in the order in which they happened.
//!
//! The contract (runtime-v2, "Events") makes the order a MUST. So there is one queue, and its
//! head is sent again until containerd took it, however long containerd is away; nothing
//! overtakes.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::topics;
use containerd_shim_protos::ttrpc;
use tokio::sync::mpsc;

/// Something that happened to a container.
pub(crate) trait Event: Message {
    /// The topic under which containerd's subscribers find it.
    const TOPIC: &'static str;
}

impl Event for TaskCreate {
    const TOPIC: &'static str = topics::TASK_CREATE_EVENT_TOPIC;
}
impl Event for TaskStart {
    const TOPIC: &'static str = topics::TASK_START_EVENT_TOPIC;
}
impl Event for TaskExecAdded {
    const TOPIC: &'static str = topics::TASK_EXEC_ADDED_EVENT_TOPIC;
}
impl Event for TaskExecStarted {
    const TOPIC: &'static str = topics::TASK_EXEC_STARTED_EVENT_TOPIC;
}
impl Event for TaskExit {
    const TOPIC: &'static str = topics::TASK_EXIT_EVENT_TOPIC;
}
impl Event for TaskOOM {
    const TOPIC: &'static str = topics::TASK_OOM_EVENT_TOPIC;
}
impl Event for TaskPaused {
    const TOPIC: &'static str = topics::TASK_PAUSED_EVENT_TOPIC;
}
impl Event for TaskResumed {
    const TOPIC: &'static str = topics::TASK_RESUMED_EVENT_TOPIC;
}
impl Event for TaskDelete {
    const TOPIC: &'static str = topics::TASK_DELETE_EVENT_TOPIC;
}

/// The writing end of the queue.
#[derive(Clone)]
pub(crate) struct Events {
    namespace: String,
    queue: mpsc::UnboundedSender<Envelope>,
}

/// Ends when the queue is empty and no sender is left.
pub(crate) type Delivery = tokio::task::JoinHandle<()>;

/// How long one attempt may take, and how long to wait before the next.
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

impl Events {
    /// Starts delivering to containerd's ttrpc socket.
    pub(crate) fn start(namespace: &str, address: &str) -> (Self, Delivery) {
        let (queue, events) = mpsc::unbounded_channel();
        let address = address.trim_start_matches("unix://").to_owned();
        let delivery = tokio::spawn(deliver(address, events));
        (
            Self {
                namespace: namespace.to_owned(),
                queue,
            },
            delivery,
        )
    }

    /// Puts an event into the queue; never waits.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let Ok(value) = event.write_to_bytes() else {
            return;
        };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: type_url::<E>(),
                value,
                ..Default::default()
            }),
            ..Default::default()
        };
        // The receiver goes away only with the supervisor itself.
        let _ = self.queue.send(envelope);
    }
}

/// containerd's typeurl has bare names.
fn type_url<E: Event>() -> String {
    format!("containerd.events.{}", E::NAME)
}

/// A moment in containerd's terms.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Default::default()
    }
}

async fn deliver(address: String, mut events: mpsc::UnboundedReceiver<Envelope>) {
    let mut client: Option<EventsClient> = None;
    while let Some(envelope) = events.recv().await {
        let request = ForwardRequest {
            envelope: MessageField::some(envelope),
            ..Default::default()
        };
        loop {
            if client.is_none() {
                client = Client::connect(&format!("unix://{address}"))
                    .await
                    .ok()
                    .map(EventsClient::new);
            }
            if let Some(connected) = &client {
                let context = ttrpc::context::with_duration(ATTEMPT);
                match connected.forward(context, &request).await {
                    Ok(_) => break,
                    // containerd answered that it does not want it: sending again is no use.
                    Err(ttrpc::Error::RpcStatus(status)) if !unavailable(&status) => {
                        tracing::warn!(topic = request.envelope().topic(), %status, "event refused");
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(topic = request.envelope().topic(), %error, "event not delivered yet");
                        client = None;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn unavailable(status: &ttrpc::Status) -> bool {
    matches!(
        status.code.enum_value(),
        Ok(ttrpc::Code::UNAVAILABLE | ttrpc::Code::DEADLINE_EXCEEDED | ttrpc::Code::CANCELLED)
    )
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::protobuf::MessageFull;

    use super::*;

    #[test]
    fn events_have_containerds_names() {
        fn named<E: Event + MessageFull>() {
            assert_eq!(type_url::<E>(), E::descriptor().full_name());
        }
        named::<TaskCreate>();
        named::<TaskStart>();
        named::<TaskExecAdded>();
        named::<TaskExecStarted>();
        named::<TaskExit>();
        named::<TaskOOM>();
        named::<TaskPaused>();
        named::<TaskResumed>();
        named::<TaskDelete>();
    }
}
