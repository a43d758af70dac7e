//! containerd's Task service: wire types in, wire types out; nothing of them goes further.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExit, TaskIO, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;

use crate::container::{Container, Exit, Phase, Process};
use crate::failure::{Failure, Kind, Outcome};
use crate::launch::{self, Order};
use crate::stdio::Uris;
use crate::supervisor::Supervisor;
use crate::{oom, options, stats, update};

pub(crate) struct TaskService {
    supervisor: Arc<Supervisor>,
}

impl TaskService {
    pub(crate) const fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    /// The container of a request that may name a process inside of it.
    fn main_process(&self, id: &str, exec_id: &str) -> Outcome<Arc<Container>> {
        let container = self.supervisor.container(id)?;
        if exec_id.is_empty() {
            return Ok(container);
        }
        Err(Failure::new(
            Kind::NotFound,
            format!("container {id} has no process {exec_id}"),
        ))
    }

    async fn create_container(&self, request: CreateTaskRequest) -> Outcome<u32> {
        if !request.checkpoint.is_empty() {
            return Err(Failure::unimplemented("restoring a checkpoint"));
        }
        if request.terminal {
            return Err(Failure::unimplemented("a terminal"));
        }
        let order = Order {
            options: options::decode(request.options.as_ref()).map_err(Failure::invalid)?,
            uris: Uris {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
            },
            rootfs: request.rootfs.iter().map(launch::rootfs_mount).collect(),
            bundle: request.bundle.clone(),
            id: request.id.clone(),
        };
        let given_up = self.supervisor.reserve(&order.id)?;
        let container = match launch::create(&self.supervisor, order, given_up).await {
            Ok(container) => Arc::new(container),
            Err(launch::Stopped::Failed(failure)) => {
                self.supervisor.forget(&request.id);
                return Err(failure);
            }
            Err(launch::Stopped::GivenUp) => {
                self.supervisor.forget(&request.id);
                // Shutdown came before this one was gone.
                self.supervisor.end_if_empty();
                return Err(Failure::new(
                    Kind::Precondition,
                    format!("container {} was given up", request.id),
                ));
            }
        };
        self.supervisor.insert(container.clone());
        let pid = container.pid();
        self.supervisor.events.publish(&TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..Default::default()
            }),
            pid,
            ..Default::default()
        });
        if !matches!(container.process, Process::Holder(_)) {
            tokio::spawn(oom::follow(
                container.clone(),
                self.supervisor.events.clone(),
            ));
        }
        // Spawned after the create event is in the queue, so that the exit comes behind it.
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move {
            let exit = container.watch().await;
            let _turn = container.turn().await;
            tracing::info!(id = %container.id, status = exit.status, "container exits");
            oom::tell(&container, &supervisor.events);
            supervisor.events.publish(&TaskExit {
                container_id: container.id.to_string(),
                id: container.id.to_string(),
                pid,
                exit_status: exit.status,
                exited_at: exit.time(),
                ..Default::default()
            });
            container.stopped(exit);
        });
        Ok(pid)
    }
}

fn answer<T>(outcome: Outcome<T>) -> ttrpc::Result<T> {
    outcome.map_err(|failure| {
        tracing::debug!(%failure, "request refused");
        failure.into()
    })
}

#[async_trait]
impl Task for TaskService {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let id = request.id.clone();
        // In a task of its own: the library drops this one when containerd dies, and a container that is half made would
        // then belong to nobody. So it is finished, or given up by Shutdown when containerd is back.
        let service = Self::new(self.supervisor.clone());
        let created = tokio::spawn(async move { service.create_container(request).await })
            .await
            .unwrap_or_else(|error| Err(Failure::internal(error)));
        match &created {
            Ok(pid) => tracing::info!(id, pid, "container created"),
            Err(failure) => tracing::warn!(id, %failure, "container not created"),
        }
        answer(created.map(|pid| CreateTaskResponse {
            pid,
            ..Default::default()
        }))
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        let pid = container.pid();
        // A program may end at once; its exit is published behind its start.
        let _turn = container.turn().await;
        answer(container.start().await)?;
        self.supervisor.events.publish(&TaskStart {
            container_id: request.id,
            pid,
            ..Default::default()
        });
        Ok(StartResponse {
            pid,
            ..Default::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        let mut response = StateResponse {
            id: request.id,
            bundle: container.bundle.clone(),
            pid: container.pid(),
            stdin: container.uris.stdin.clone(),
            stdout: container.uris.stdout.clone(),
            stderr: container.uris.stderr.clone(),
            ..Default::default()
        };
        response.status = EnumOrUnknown::new(match container.phase() {
            Phase::Created => Status::CREATED,
            Phase::Running if container.is_paused() => Status::PAUSED,
            Phase::Running => Status::RUNNING,
            Phase::Stopped(exit) => {
                response.exit_status = exit.status;
                response.exited_at = exit.time();
                Status::STOPPED
            }
        });
        Ok(response)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        let exit = container.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        let signal = answer(
            i32::try_from(request.signal)
                .ok()
                .filter(|signal| (1..=64).contains(signal))
                .ok_or_else(|| {
                    Failure::new(
                        Kind::Invalid,
                        format!("{} is not a signal (1 to 64)", request.signal),
                    )
                }),
        )?;
        answer(container.kill(signal, request.all))?;
        Ok(Empty::new())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        let pid = container.pid();
        if container.phase() != Phase::Running {
            self.supervisor.goes(&request.id);
        }
        let exit: Exit = answer(container.delete().await)?;
        self.supervisor.events.publish(&TaskDelete {
            container_id: request.id.clone(),
            pid,
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        });
        self.supervisor.forget(&request.id);
        tracing::info!(id = request.id, "container deleted");
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = answer(self.main_process(&request.id, ""))?;
        let pids = answer(container.cgroup.pids().map_err(Failure::internal))?;
        let processes = pids
            .into_iter()
            .filter_map(|pid| {
                Some(ProcessInfo {
                    pid: u32::try_from(pid).ok()?,
                    ..Default::default()
                })
            })
            .collect();
        Ok(PidsResponse {
            processes,
            ..Default::default()
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let container = answer(self.main_process(&request.id, &request.exec_id))?;
        if request.stdin {
            container.held().close_stdin();
        }
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = answer(self.main_process(&request.id, ""))?;
        let metrics = answer(stats::of(&container.cgroup))?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..Default::default()
        })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        // containerd asks an empty supervisor too, when it finds it again.
        let task_pid = self
            .supervisor
            .container(&request.id)
            .map_or(0, |container| container.pid());
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.supervisor.give_up(&request.id);
        self.supervisor.end_if_empty();
        Ok(Empty::new())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.supervisor.container(&request.id))?;
        answer(container.pause(true))?;
        self.supervisor.events.publish(&TaskPaused {
            container_id: request.id,
            ..Default::default()
        });
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.supervisor.container(&request.id))?;
        answer(container.pause(false))?;
        self.supervisor.events.publish(&TaskResumed {
            container_id: request.id,
            ..Default::default()
        });
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        answer(Err(Failure::unimplemented("Checkpoint")))
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<Empty> {
        answer(Err(Failure::unimplemented("Exec")))
    }

    async fn resize_pty(&self, _: &TtrpcContext, _: ResizePtyRequest) -> ttrpc::Result<Empty> {
        answer(Err(Failure::unimplemented("ResizePty")))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.supervisor.container(&request.id))?;
        let resources = answer(update::resources(&request.resources.value))?;
        answer(update::apply(&container, &resources))?;
        Ok(Empty::new())
    }
}
