//! The long-lived process: serves containerd's Task service for the containers of one pod, and
//! ends when the last of them is deleted.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use containerd_shim_protos::sandbox_async::create_sandbox;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::r#async::Server;
use containerd_shim_protos::ttrpc::r#async::transport::Listener;
use plan::NodeConfig;
use tokio::sync::{Notify, oneshot};

use crate::bootstrap::Bootstrap;
use crate::container::Container;
use crate::containerd::Containerd;
use crate::events::Events;
use crate::failure::{Failure, Kind, Outcome};
use crate::pod::PodService;
use crate::start::Group;
use crate::task::TaskService;

/// How long a supervisor without a container waits for one: containerd that died between
/// `start` and Create, or between Delete and Shutdown, never comes back to it.
const IDLE: Duration = Duration::from_secs(10);
/// How long events may still wait for containerd when everything else is over.
const LAST_EVENTS: Duration = Duration::from_secs(30);

/// What the requests share.
pub(crate) struct Supervisor {
    pub(crate) namespace: String,
    pub(crate) config: NodeConfig,
    pub(crate) containerd: Containerd,
    pub(crate) events: Events,
    containers: Mutex<HashMap<String, Slot>>,
    /// Where it listens; none once nobody is to find it any more.
    socket: Mutex<Option<PathBuf>>,
    /// Told whenever the last container may be gone.
    changed: Notify,
    over: Notify,
}

/// A container, or the promise of one, by which a second Create is refused.
enum Slot {
    /// The sender is gone once containerd has given it up.
    Creating(Option<oneshot::Sender<()>>),
    There(Arc<Container>),
}

impl Supervisor {
    fn containers(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // The map is whole after every statement: a panic elsewhere does not spoil it.
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The container of that id.
    pub(crate) fn container(&self, id: &str) -> Outcome<Arc<Container>> {
        match self.containers().get(id) {
            Some(Slot::There(container)) => Ok(container.clone()),
            _ => Err(Failure::no_container(id)),
        }
    }

    /// Takes an id for a container that is about to be made. The receiver hears when containerd gives it up
    /// meanwhile.
    pub(crate) fn reserve(&self, id: &str) -> Outcome<oneshot::Receiver<()>> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(Failure::new(
                Kind::Exists,
                format!("container {id} exists already"),
            ));
        }
        let (sender, given_up) = oneshot::channel();
        containers.insert(id.to_owned(), Slot::Creating(Some(sender)));
        Ok(given_up)
    }

    /// Fills the reserved place.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.containers()
            .insert(container.id.to_string(), Slot::There(container));
    }

    /// Empties a place.
    pub(crate) fn forget(&self, id: &str) {
        self.containers().remove(id);
        self.changed.notify_one();
    }

    /// Stops a creation that is still under way. containerd that was killed during it does not know of the container when
    /// it comes back, sends Shutdown for it, and nobody would ever delete it.
    pub(crate) fn give_up(&self, id: &str) {
        if let Some(Slot::Creating(sender)) = self.containers().get_mut(id)
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
        let last = self.containers().keys().all(|other| other == id);
        if last {
            self.leave_socket();
        }
    }

    fn leave_socket(&self) {
        let socket = self
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(socket) = socket
            && let Err(error) = std::fs::remove_file(&socket)
        {
            tracing::warn!(%error, socket = %socket.display(), "the socket stays behind");
        }
    }

    /// Ends the supervisor if it serves nobody (Shutdown).
    pub(crate) fn end_if_empty(&self) {
        if self.containers().is_empty() {
            self.over.notify_one();
        }
    }

    /// Returns when there has been no container for a while.
    async fn idle(&self) {
        loop {
            let nobody = self.containers().is_empty();
            let changed = self.changed.notified();
            if nobody {
                if tokio::time::timeout(IDLE, changed).await.is_err()
                    && self.containers().is_empty()
                {
                    return;
                }
            } else {
                changed.await;
            }
        }
    }
}

/// Runs the supervisor until its end. The process has one thread.
pub(crate) fn serve(
    listener: UnixListener,
    socket: &Path,
    bootstrap: &Bootstrap,
    group: &Group,
    config: NodeConfig,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(run(listener, socket, bootstrap, group, config));
    // A thread may still wait for somebody else's compilation, which nobody wants any more.
    runtime.shutdown_background();
    served
}

async fn run(
    listener: UnixListener,
    socket: &Path,
    bootstrap: &Bootstrap,
    group: &Group,
    config: NodeConfig,
) -> anyhow::Result<()> {
    ignore_signals()?;
    jail::become_subreaper()?;
    let (events, delivery) = Events::start(&bootstrap.namespace, &bootstrap.ttrpc_address);
    let supervisor = Arc::new(Supervisor {
        namespace: bootstrap.namespace.clone(),
        config,
        containerd: Containerd::new(&bootstrap.grpc_address, &bootstrap.namespace, group.only()),
        events,
        containers: Mutex::default(),
        socket: Mutex::new(Some(socket.to_owned())),
        changed: Notify::new(),
        over: Notify::new(),
    });
    let mut server = services(listener, &supervisor)?;
    server.start().await.context("serve containerd")?;
    let early = supervisor.clone();
    tokio::spawn(async move { early.containerd.ask_early().await });
    tracing::info!(
        namespace = bootstrap.namespace,
        id = bootstrap.id,
        "supervisor serves"
    );
    tokio::select! {
        () = supervisor.over.notified() => {}
        () = supervisor.idle() => {}
    }
    // Nobody else removes it. Now, while it still listens: containerd may start a container of the same id as soon as it
    // has the answer to Shutdown.
    supervisor.leave_socket();
    tracing::info!("supervisor ends");
    // Answers that are under way are finished; then the queue of events ends with its senders.
    server.shutdown().await.context("end the services")?;
    drop(server);
    drop(supervisor);
    let _ = tokio::time::timeout(LAST_EVENTS, delivery).await;
    Ok(())
}

/// The Task service under both names (containerd 1.7 asks for version 2, which has the same messages) and the one for pods.
fn services(listener: UnixListener, supervisor: &Arc<Supervisor>) -> anyhow::Result<Server> {
    listener.set_nonblocking(true)?;
    let listener = Listener::try_from(listener).context("take the socket over")?;
    let service = || create_task(Arc::new(TaskService::new(supervisor.clone())));
    let older = service()
        .into_iter()
        .map(|(name, service)| (name.replace(".v3.", ".v2."), service))
        .collect();
    Ok(Server::new()
        .add_listener(listener)
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
