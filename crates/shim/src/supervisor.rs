//! The long-lived process: serves containerd's Task service for the containers of its group, and
//! ends when the last of them is deleted.
//!
//! Who comes while it ends must not be lost. `start` finds it by its socket and announces the container, from which moment
//! it is expected ([`Supervisor::expect`]). A supervisor that nobody is in or expected takes its socket away and refuses
//! further announcements, both at once, so that `start` makes another one.

use std::collections::HashMap;
use std::os::unix::net::UnixListener as BoundListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::r#async::Server;
use plan::NodeConfig;
use tokio::net::UnixListener;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::bootstrap::Bootstrap;
use crate::compile::blocking;
use crate::connection::Connections;
use crate::container::{Container, Runs};
use crate::containerd::{Containerd, Recorded};
use crate::events::Events;
use crate::failure::{Failure, Kind, Outcome};
use crate::flights::Flights;
use crate::logs::Logs;
use crate::pod::PodService;
use crate::record::Incarnation;
use crate::room::{Room, Served};
use crate::start::Group;
use crate::task::TaskService;
use crate::totals::Totals;
use crate::trace::Traces;

/// How long a supervisor waits for a container that was announced, and without a container for
/// one: containerd that died between `start` and Create, or between Delete and Shutdown, never
/// comes back to it.
const IDLE: Duration = Duration::from_secs(10);
/// How long events may still wait for containerd when everything else is over.
const LAST_EVENTS: Duration = Duration::from_secs(30);

/// What the requests share.
pub(crate) struct Supervisor {
    pub(crate) namespace: String,
    pub(crate) config: NodeConfig,
    pub(crate) containerd: Containerd,
    pub(crate) events: Events,
    pub(crate) flights: Flights,
    /// Where the node's numbers are counted.
    pub(crate) totals: Totals,
    /// Its own process, for the records of its containers.
    pub(crate) incarnation: Incarnation,
    /// Whether and where to trace.
    pub(crate) traces: Traces,
    logs: Logs,
    room: Room,
    /// Whether it serves several pods, which share its one thread.
    shared: bool,
    containers: Mutex<Containers>,
    /// Told whenever the last container may be gone.
    changed: Notify,
    over: Notify,
}

/// Who is in.
struct Containers {
    slots: HashMap<String, Slot>,
    /// Where the supervisor listens; none once nobody is to find it any more.
    socket: Option<PathBuf>,
}

/// A container, or the promise of one, by which a second Create is refused.
enum Slot {
    /// `start` has announced it, at that moment.
    Expected(Instant, Arc<Recorded>),
    /// The sender is gone once containerd has given it up.
    Creating(Option<oneshot::Sender<()>>),
    There(Arc<Container>),
}

/// A place for a container that is about to be made.
pub(crate) struct Reserved {
    pub(crate) record: Arc<Recorded>,
    /// Hears when containerd gives the container up meanwhile.
    pub(crate) given_up: oneshot::Receiver<()>,
}

impl Supervisor {
    fn containers(&self) -> MutexGuard<'_, Containers> {
        // It is whole after every statement: a panic elsewhere does not spoil it.
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does work for which the kernel may make it wait: on a thread of its own where other pods would wait too.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        if self.shared {
            blocking(work).await
        } else {
            work()
        }
    }

    /// The container of that id.
    pub(crate) fn container(&self, id: &str) -> Outcome<Arc<Container>> {
        match self.containers().slots.get(id) {
            Some(Slot::There(container)) => Ok(container.clone()),
            _ => Err(Failure::no_container(id)),
        }
    }

    /// Waits for a container that `start` announces, for a while. `alone` tells whether it is in no pod: a pod's own
    /// container has an image that nobody asks for.
    pub(crate) fn expect(
        self: &Arc<Self>,
        id: &str,
        alone: impl FnOnce() -> bool + Send + 'static,
    ) -> Outcome<()> {
        let mut containers = self.containers();
        if containers.socket.is_none() {
            return Err(Failure::new(Kind::Unavailable, "the supervisor ends"));
        }
        if containers.slots.contains_key(id) {
            return Ok(());
        }
        containers.one_more(self.room)?;
        let now = Instant::now();
        let record = Arc::new(Recorded::of(id));
        let slot = Slot::Expected(now, record.clone());
        containers.slots.insert(id.to_owned(), slot);
        // The supervisor does not wait for it to end.
        let (this, id) = (Arc::downgrade(self), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            if let Some(this) = this.upgrade()
                && this.expect_no_more(&id, |announced| announced == now)
            {
                this.end_if_empty();
            }
        });
        let this = self.clone();
        tokio::spawn(async move {
            // Who announces it is answered first.
            tokio::task::yield_now().await;
            this.ask_early(&record, alone).await;
        });
        Ok(())
    }

    /// Asks containerd what Create will want to know, while that is on its way. What fails is asked again then, and told.
    async fn ask_early(&self, record: &Recorded, alone: impl FnOnce() -> bool) {
        let image = async {
            if alone() {
                let _ = record.image(&self.containerd).await;
            }
        };
        let _ = tokio::join!(self.containerd.content(), image);
    }

    /// Whether it was expected, by the announcement that is meant.
    fn expect_no_more(&self, id: &str, is_meant: impl FnOnce(Instant) -> bool) -> bool {
        let mut containers = self.containers();
        let expected = match containers.slots.get(id) {
            Some(Slot::Expected(announced, _)) => is_meant(*announced),
            _ => false,
        };
        if expected {
            containers.slots.remove(id);
        }
        expected
    }

    /// Takes an id for a container that is about to be made.
    pub(crate) fn reserve(&self, id: &str, bundle: &str) -> Outcome<Reserved> {
        let mut containers = self.containers();
        let record = match containers.slots.get(id) {
            None => {
                containers.one_more(self.room)?;
                Arc::new(Recorded::of(id))
            }
            Some(Slot::Expected(_, record)) => record.clone(),
            Some(Slot::Creating(_) | Slot::There(_)) => {
                return Err(Failure::new(
                    Kind::Exists,
                    format!("container {id} exists already"),
                ));
            }
        };
        let (sender, given_up) = oneshot::channel();
        let slot = Slot::Creating(Some(sender));
        containers.slots.insert(id.to_owned(), slot);
        self.logs.there(id, bundle);
        Ok(Reserved { record, given_up })
    }

    /// Fills the reserved place.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.containers()
            .slots
            .insert(container.id.to_string(), Slot::There(container));
    }

    /// Empties a place.
    pub(crate) fn forget(&self, id: &str) {
        self.containers().slots.remove(id);
        self.logs.gone(id);
        self.changed.notify_one();
    }

    /// Stops a creation that is still under way. containerd that was killed during it does not know of the container when
    /// it comes back, sends Shutdown for it, and nobody would ever delete it.
    pub(crate) fn give_up(&self, id: &str) {
        self.expect_no_more(id, |_| true);
        if let Some(Slot::Creating(sender)) = self.containers().slots.get_mut(id)
            && let Some(sender) = sender.take()
        {
            // Who has just finished does not listen any more; then it is there and can be deleted.
            let _ = sender.send(());
        }
    }

    /// Takes the socket away if this container is the last one. Before the container goes: containerd removes the bundle
    /// as soon as it has heard of the deletion, and without a bundle it runs no `delete` for a supervisor that is killed
    /// then. Whoever is connected goes on, and what is at this path later is another supervisor's.
    pub(crate) fn goes(&self, id: &str) {
        let mut containers = self.containers();
        if containers.slots.keys().all(|other| other == id) {
            containers.leave_socket();
        }
    }

    /// Ends the supervisor if it serves nobody (Shutdown).
    pub(crate) fn end_if_empty(&self) {
        if self.leave_if_empty() {
            self.over.notify_one();
        }
    }

    /// Takes the socket away if nobody is in or expected; nobody comes then.
    fn leave_if_empty(&self) -> bool {
        let mut containers = self.containers();
        let empty = containers.slots.is_empty();
        if empty {
            containers.leave_socket();
        }
        empty
    }

    /// Returns when there has been no container for a while, and there will be none.
    async fn idle(&self) {
        loop {
            let nobody = self.containers().slots.is_empty();
            let changed = self.changed.notified();
            if nobody {
                if tokio::time::timeout(IDLE, changed).await.is_err() && self.leave_if_empty() {
                    return;
                }
            } else {
                changed.await;
            }
        }
    }
}

impl Containers {
    fn one_more(&self, room: Room) -> Outcome<()> {
        let mut served = Served::default();
        for slot in self.slots.values() {
            match slot {
                Slot::There(container) if matches!(container.runs, Runs::Holder) => {
                    served.holders += 1;
                }
                Slot::There(container) => {
                    served.containers += 1;
                    served.execs += container.count_execs();
                }
                Slot::Expected(..) | Slot::Creating(_) => served.containers += 1,
            }
        }
        room.for_one_more(served)
    }

    fn leave_socket(&mut self) {
        if let Some(socket) = self.socket.take()
            && let Err(error) = std::fs::remove_file(&socket)
        {
            tracing::warn!(%error, socket = %socket.display(), "the socket stays behind");
        }
    }
}

/// Runs the supervisor until its end. The process has one thread.
pub(crate) fn serve(
    listener: BoundListener,
    socket: &Path,
    bootstrap: &Bootstrap,
    group: &Group,
    config: NodeConfig,
    logs: Logs,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(run(listener, socket, bootstrap, group, config, logs));
    // A thread may still wait for somebody else's compilation, which nobody wants any more.
    runtime.shutdown_background();
    served
}

async fn run(
    listener: BoundListener,
    socket: &Path,
    bootstrap: &Bootstrap,
    group: &Group,
    config: NodeConfig,
    logs: Logs,
) -> anyhow::Result<()> {
    ignore_signals()?;
    jail::become_subreaper()?;
    let limit = jail::raise_descriptor_limit()?;
    let totals = Totals::of(&config.run);
    logs.count_in(&totals);
    let (events, delivery) = Events::start(&bootstrap.namespace, &bootstrap.ttrpc_address);
    let supervisor = Arc::new(Supervisor {
        namespace: bootstrap.namespace.clone(),
        traces: Traces::new(&config.run),
        config,
        containerd: Containerd::new(&bootstrap.grpc_address, &bootstrap.namespace),
        events,
        flights: Flights::default(),
        totals,
        incarnation: Incarnation::this(),
        logs,
        room: Room { limit },
        shared: matches!(group, Group::Node(_)),
        containers: Mutex::new(Containers {
            slots: HashMap::new(),
            socket: Some(socket.to_owned()),
        }),
        changed: Notify::new(),
        over: Notify::new(),
    });
    // Others may come and go before the one for which it was started.
    let alone = matches!(group, Group::Container(_));
    let _ = supervisor.expect(&bootstrap.id, move || alone);
    let connections = Connections::new();
    let mut server = services(listener, &connections, &supervisor)?;
    server.start().await.context("serve containerd")?;
    tracing::info!(
        namespace = bootstrap.namespace,
        id = bootstrap.id,
        descriptors = limit,
        socket = %socket.display(),
        "supervisor serves"
    );
    let served = tokio::select! {
        () = supervisor.over.notified() => true,
        () = supervisor.idle() => false,
    };
    tracing::info!("supervisor ends");
    // Nobody's end can be told twice where nobody has been for a while.
    if served {
        connections.closed().await;
    }
    // Answers that are under way are finished; then the queue of events ends with its senders.
    server.shutdown().await.context("end the services")?;
    drop(server);
    supervisor.traces.sent().await;
    drop(supervisor);
    let _ = tokio::time::timeout(LAST_EVENTS, delivery).await;
    Ok(())
}

/// The Task service under both names (containerd 1.7 asks for version 2, which has the same messages) and the one for pods.
fn services(
    listener: BoundListener,
    connections: &Connections,
    supervisor: &Arc<Supervisor>,
) -> anyhow::Result<Server> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener).context("take the socket over")?;
    let service = || create_task(Arc::new(TaskService::new(supervisor.clone())));
    let older = service()
        .into_iter()
        .map(|(name, service)| (name.replace(".v3.", ".v2."), service))
        .collect();
    Ok(Server::new()
        .add_listener(connections.of(listener))
        .register_service(service())
        .register_service(older)
        .register_service(create_sandbox(Arc::new(PodService::new(
            supervisor.clone(),
        )))))
}

/// The supervisor ends with its last container and not before: a service manager that stops
/// containerd must not end the pods.
fn ignore_signals() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::pipe(),
    ] {
        // Once asked for, the default action is off for good; nobody has to listen.
        drop(signal(kind).context("take a signal")?);
    }
    Ok(())
}
