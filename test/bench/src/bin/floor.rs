//! `containerd-shim-floor-v1`: a shim that does nothing, built as the skeleton example of the `containerd-shim` crate.
//!
//! Create and start answer at once; start writes one line to the standard output that containerd named, and the task has
//! ended. What the bench measures with it is containerd's own cost, below which no shim can come.
//!
//! The container's id tells it two things, so that it need not read the bundle: containers named `hold-POD-NAME` share
//! one shim per POD and run until they are killed.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use containerd_shim::asynchronous::{ExitSignal, Shim, run, spawn};
use containerd_shim::event::Event;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, Error, Flags, StartOpts, TtrpcContext, TtrpcResult};
use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, KillRequest, PidsRequest, PidsResponse, ProcessInfo, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, Status, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc;
use tokio::sync::watch;

/// Containers whose id starts so stay until they are killed.
const HOLD: &str = "hold-";

#[derive(Clone)]
struct Floor {
    namespace: String,
    socket: String,
    exit: Arc<ExitSignal>,
}

struct Service {
    namespace: String,
    exit: Arc<ExitSignal>,
    publisher: RemotePublisher,
    tasks: Mutex<HashMap<String, FakeTask>>,
}

/// `exit` holds the exit status once the task has ended.
struct FakeTask {
    stdout: String,
    started: bool,
    exit: watch::Sender<Option<u32>>,
}

#[async_trait]
impl Shim for Floor {
    type T = Service;

    async fn new(_runtime_id: &str, flags: &Flags, _config: &mut Config) -> Self {
        Self {
            namespace: flags.namespace.clone(),
            socket: flags.socket.clone(),
            exit: Arc::default(),
        }
    }

    async fn start_shim(&mut self, opts: StartOpts) -> Result<String, Error> {
        let grouping = match opts.id.strip_prefix(HOLD) {
            Some(rest) => rest.split('-').next().unwrap_or(rest).to_owned(),
            None => opts.id.clone(),
        };
        spawn(opts, &grouping, Vec::new()).await
    }

    async fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        Ok(DeleteResponse::new())
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        // The library looks its address up in the bundle, which containerd has removed by now.
        let _ = std::fs::remove_file(self.socket.trim_start_matches("unix://"));
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> Service {
        Service {
            namespace: self.namespace.clone(),
            exit: self.exit.clone(),
            publisher,
            tasks: Mutex::default(),
        }
    }
}

fn not_found(id: &str) -> ttrpc::Error {
    let mut status = ttrpc::proto::Status::new();
    status.set_code(ttrpc::proto::Code::NOT_FOUND);
    status.set_message(format!("task {id:?} is not here"));
    ttrpc::Error::RpcStatus(status)
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

impl Service {
    fn tasks(&self) -> MutexGuard<'_, HashMap<String, FakeTask>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(&self, context: &TtrpcContext, event: impl Event) {
        let topic = event.topic();
        // A lost event would only change the clean-up on containerd's side; the call must not fail for it.
        let _ = self
            .publisher
            .publish(
                ttrpc::context::with_metadata(context.metadata.clone()),
                &topic,
                &self.namespace,
                Box::new(event),
            )
            .await;
    }

    async fn end(&self, context: &TtrpcContext, id: &str, status: u32) {
        self.publish(
            context,
            TaskExit {
                container_id: id.to_owned(),
                id: id.to_owned(),
                pid: std::process::id(),
                exit_status: status,
                exited_at: Some(now()).into(),
                ..Default::default()
            },
        )
        .await;
        if let Some(task) = self.tasks().get(id) {
            task.exit.send_replace(Some(status));
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        self.tasks().insert(
            request.id.clone(),
            FakeTask {
                stdout: request.stdout,
                started: false,
                exit: watch::Sender::new(None),
            },
        );
        let pid = std::process::id();
        self.publish(
            context,
            TaskCreate {
                container_id: request.id,
                bundle: request.bundle,
                pid,
                ..Default::default()
            },
        )
        .await;
        Ok(CreateTaskResponse {
            pid,
            ..Default::default()
        })
    }

    async fn start(
        &self,
        context: &TtrpcContext,
        request: StartRequest,
    ) -> TtrpcResult<StartResponse> {
        let stdout = {
            let mut tasks = self.tasks();
            let task = tasks
                .get_mut(&request.id)
                .ok_or_else(|| not_found(&request.id))?;
            task.started = true;
            task.stdout.clone()
        };
        // One line fits into the pipe: this cannot block once the bench has its end open.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&stdout)
            .and_then(|mut fifo| fifo.write_all(b"hello\n"))
            .map_err(|error| ttrpc::Error::Others(format!("write to {stdout:?}: {error}")))?;
        let pid = std::process::id();
        self.publish(
            context,
            TaskStart {
                container_id: request.id.clone(),
                pid,
                ..Default::default()
            },
        )
        .await;
        if !request.id.starts_with(HOLD) {
            self.end(context, &request.id, 0).await;
        }
        Ok(StartResponse {
            pid,
            ..Default::default()
        })
    }

    async fn wait(
        &self,
        _context: &TtrpcContext,
        request: WaitRequest,
    ) -> TtrpcResult<WaitResponse> {
        let mut exit = self
            .tasks()
            .get(&request.id)
            .ok_or_else(|| not_found(&request.id))?
            .exit
            .subscribe();
        let status = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status)
            .unwrap_or_default();
        Ok(WaitResponse {
            exit_status: status,
            exited_at: Some(now()).into(),
            ..Default::default()
        })
    }

    async fn kill(&self, context: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        self.end(context, &request.id, 128 + request.signal).await;
        Ok(Empty::new())
    }

    async fn delete(
        &self,
        context: &TtrpcContext,
        request: DeleteRequest,
    ) -> TtrpcResult<DeleteResponse> {
        let task = self
            .tasks()
            .remove(&request.id)
            .ok_or_else(|| not_found(&request.id))?;
        let (pid, status) = (std::process::id(), task.exit.borrow().unwrap_or_default());
        self.publish(
            context,
            TaskDelete {
                container_id: request.id,
                pid,
                exit_status: status,
                exited_at: Some(now()).into(),
                ..Default::default()
            },
        )
        .await;
        Ok(DeleteResponse {
            pid,
            exit_status: status,
            exited_at: Some(now()).into(),
            ..Default::default()
        })
    }

    async fn state(
        &self,
        _context: &TtrpcContext,
        request: StateRequest,
    ) -> TtrpcResult<StateResponse> {
        let tasks = self.tasks();
        let task = tasks
            .get(&request.id)
            .ok_or_else(|| not_found(&request.id))?;
        let exit = *task.exit.borrow();
        let status = match (task.started, exit) {
            (_, Some(_)) => Status::STOPPED,
            (true, None) => Status::RUNNING,
            (false, None) => Status::CREATED,
        };
        Ok(StateResponse {
            id: request.id,
            pid: std::process::id(),
            status: status.into(),
            stdout: task.stdout.clone(),
            exit_status: exit.unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn pids(
        &self,
        _context: &TtrpcContext,
        _request: PidsRequest,
    ) -> TtrpcResult<PidsResponse> {
        Ok(PidsResponse {
            processes: vec![ProcessInfo {
                pid: std::process::id(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    async fn connect(
        &self,
        _context: &TtrpcContext,
        _request: ConnectRequest,
    ) -> TtrpcResult<ConnectResponse> {
        let pid = std::process::id();
        Ok(ConnectResponse {
            shim_pid: pid,
            task_pid: pid,
            ..Default::default()
        })
    }

    async fn shutdown(
        &self,
        _context: &TtrpcContext,
        _request: ShutdownRequest,
    ) -> TtrpcResult<Empty> {
        if self.tasks().is_empty() {
            self.exit.signal();
        }
        Ok(Empty::new())
    }
}

#[tokio::main]
async fn main() {
    run::<Floor>("io.containerd.floor.v1", None).await;
}
