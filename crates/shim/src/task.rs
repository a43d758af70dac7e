//! containerd's Task service: wire types in, wire types out; nothing of them goes further.

use std::path::Path;
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
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField, MessageFull};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use plan::numbers::{Phase as Timed, Total};
use plan::{ContainerId, ExecPlan};
use tracing::Instrument as _;

use crate::container::{Container, Runs};
use crate::exec::Exec;
use crate::failure::{Failure, Kind, Outcome, answer};
use crate::launch::{self, Order};
use crate::process::{Exit, Phase, Process};
use crate::stdio::Streams;
use crate::supervisor::Supervisor;
use crate::trace::Trace;
use crate::{incidents, on_term, oom, options, peer, start, stats, update};

pub(crate) struct TaskService {
    supervisor: Arc<Supervisor>,
}

impl TaskService {
    pub(crate) const fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    /// The process that a request names: one that was executed in the container, or its first one.
    fn process(&self, id: &str, exec_id: &str) -> Outcome<Named> {
        let container = self.supervisor.container(id)?;
        let exec = match exec_id {
            "" => None,
            exec_id => Some(container.exec(exec_id)?),
        };
        Ok(Named { container, exec })
    }

    async fn create_container(&self, request: CreateTaskRequest, trace: Trace) -> Outcome<u32> {
        if !request.checkpoint.is_empty() {
            return Err(Failure::unimplemented("restoring a checkpoint"));
        }
        let order = Order {
            options: options::decode(request.options.as_ref()).map_err(Failure::invalid)?,
            streams: Streams {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
            },
            rootfs: request.rootfs.iter().map(launch::rootfs_mount).collect(),
            bundle: request.bundle.clone(),
            id: request.id.clone(),
            trace,
        };
        let container = launch::admit(&self.supervisor, order).await?;
        let pid = container.main.pid();
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
        if !matches!(container.runs, Runs::Holder) {
            tokio::spawn(oom::follow(container.clone(), self.supervisor.clone()));
        }
        // Spawned after the create event is in the queue, so that the exit comes behind it.
        let supervisor = self.supervisor.clone();
        tokio::spawn(async move {
            let exit = container.watch().await;
            let _turn = container.main.turn().await;
            tracing::info!(id = %container.id, status = exit.status, "container exits");
            oom::tell(&container, &supervisor);
            incidents::ended(&supervisor, &container, exit);
            supervisor.events.publish(&TaskExit {
                container_id: container.id.to_string(),
                id: container.id.to_string(),
                pid,
                exit_status: exit.status,
                exited_at: exit.time(),
                ..Default::default()
            });
            container.main.stopped(exit);
        });
        Ok(pid)
    }

    fn add_exec(&self, request: ExecProcessRequest) -> Outcome<()> {
        let container = self.supervisor.container(&request.id)?;
        ContainerId::new(&request.exec_id).map_err(Failure::invalid)?;
        let plan = ExecPlan::read(&request.spec.value).map_err(Failure::invalid)?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.add(Exec::new(&container, &request.exec_id, plan, streams))?;
        self.supervisor.events.publish(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..Default::default()
        });
        Ok(())
    }

    async fn start_container(&self, container: &Container) -> Outcome<u32> {
        let pid = container.main.pid();
        // A program may end at once; its exit is published behind its start.
        let _turn = container.main.turn().await;
        let totals = &self.supervisor.totals;
        totals.timed(Timed::Start, container.start()).await?;
        self.supervisor.events.publish(&TaskStart {
            container_id: container.id.to_string(),
            pid,
            ..Default::default()
        });
        Ok(pid)
    }

    async fn start_exec(&self, container: Arc<Container>, exec: Arc<Exec>) -> Outcome<u32> {
        let _turn = exec.process.turn().await;
        exec.process.can_start()?;
        let place = match container.place() {
            Ok(place) => place,
            Err(failure) => {
                exec.process.given_up();
                return Err(failure);
            }
        };
        exec.start(&self.supervisor, &container).await?;
        self.supervisor.totals.one(Total::Executed);
        let pid = exec.process.pid();
        self.supervisor.events.publish(&TaskExecStarted {
            container_id: container.id.to_string(),
            exec_id: exec.id.clone(),
            pid,
            ..Default::default()
        });
        let (supervisor, exec) = (self.supervisor.clone(), exec.clone());
        tokio::spawn(async move {
            let exit = exec.process.reap().await;
            // Whoever hears of its end may execute something else.
            drop(place);
            exec.process.close().await;
            let _turn = exec.process.turn().await;
            supervisor.events.publish(&TaskExit {
                container_id: container.id.to_string(),
                id: exec.id.clone(),
                pid,
                exit_status: exit.status,
                exited_at: exit.time(),
                ..Default::default()
            });
            exec.process.stopped(exit);
        });
        Ok(pid)
    }

    async fn delete_container(&self, container: &Container) -> Outcome<Exit> {
        let id = container.id.as_str();
        if container.main.phase() != Phase::Running {
            self.supervisor.goes(id);
        }
        let exit = container.delete().await?;
        self.supervisor.events.publish(&TaskDelete {
            container_id: id.to_owned(),
            pid: container.main.pid(),
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        });
        self.supervisor.forget(id);
        tracing::info!(id, "container deleted");
        Ok(exit)
    }
}

/// What a request names: a container, and perhaps a process that was executed in it.
struct Named {
    container: Arc<Container>,
    exec: Option<Arc<Exec>>,
}

impl Named {
    fn process(&self) -> &Process {
        match &self.exec {
            Some(exec) => &exec.process,
            None => &self.container.main,
        }
    }
}

/// Delete of a process that was executed: valid in Created and Stopped. containerd hears of its exit alone.
fn delete_exec(container: &Container, exec: &Exec) -> Outcome<Option<Exit>> {
    let exit = match exec.process.phase() {
        Phase::Running => {
            return Err(exec
                .process
                .in_wrong_phase("is running: kill it before deleting it"));
        }
        Phase::Created => None,
        Phase::Stopped(exit) => Some(exit),
    };
    // Who waits for one that was never started need not wait any more.
    exec.end();
    container.forget(&exec.id);
    Ok(exit)
}

/// A process of a container, with the id of the executed one that it is, as runc's shim tells it.
fn process_info(pid: i32, execs: &[Arc<Exec>]) -> Option<ProcessInfo> {
    let pid = u32::try_from(pid).ok()?;
    let info = execs
        .iter()
        .find(|exec| exec.process.pid() == pid)
        .and_then(|exec| {
            let details = ProcessDetails {
                exec_id: exec.id.clone(),
                ..Default::default()
            };
            Some(Any {
                type_url: ProcessDetails::descriptor().full_name().to_owned(),
                value: details.write_to_bytes().ok()?,
                ..Default::default()
            })
        });
    Some(ProcessInfo {
        pid,
        info: info.into(),
        ..Default::default()
    })
}

#[async_trait]
impl Task for TaskService {
    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let id = request.id.clone();
        // In a task of its own: the library drops this one when containerd dies, and a container that is half made would
        // then belong to nobody. So it is finished, or given up by Shutdown when containerd is back.
        let service = Self::new(self.supervisor.clone());
        let span = tracing::debug_span!("create", id);
        let phase = self.supervisor.traces.begin(span, &id, &context.metadata);
        let trace = phase.inside();
        let create = async move { service.create_container(request, trace).await };
        let created = tokio::spawn(phase.around(create))
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

    async fn start(
        &self,
        context: &TtrpcContext,
        request: StartRequest,
    ) -> ttrpc::Result<StartResponse> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
        let pid = match named.exec {
            None => {
                let span = tracing::debug_span!("start", id = request.id);
                let phase = named.container.trace.again(span, &context.metadata);
                let start = self.start_container(&named.container);
                answer(phase.around(start).await)?
            }
            Some(exec) => {
                // In a task of its own, for the same reason as Create.
                let service = Self::new(self.supervisor.clone());
                let starting =
                    tokio::spawn(async move { service.start_exec(named.container, exec).await });
                let started = starting
                    .await
                    .unwrap_or_else(|error| Err(Failure::internal(error)));
                answer(started)?
            }
        };
        Ok(StartResponse {
            pid,
            ..Default::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
        let process = named.process();
        let id = match &named.exec {
            Some(exec) => exec.id.clone(),
            None => request.id,
        };
        let mut response = StateResponse {
            id,
            bundle: named.container.bundle.clone(),
            pid: process.pid(),
            stdin: process.streams.stdin.clone(),
            stdout: process.streams.stdout.clone(),
            stderr: process.streams.stderr.clone(),
            terminal: process.streams.terminal,
            exec_id: request.exec_id,
            ..Default::default()
        };
        response.status = EnumOrUnknown::new(match process.phase() {
            Phase::Created => Status::CREATED,
            Phase::Running if named.container.is_paused() => Status::PAUSED,
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
        let named = answer(self.process(&request.id, &request.exec_id))?;
        let exit = named.process().wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
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
        answer(match &named.exec {
            Some(exec) => exec.process.kill(signal),
            None if signal == nix::libc::SIGTERM
                && !request.all
                && on_term::holds_back(&self.supervisor, &named.container) =>
            {
                Ok(())
            }
            None => named.container.kill(signal, request.all),
        })?;
        Ok(Empty::new())
    }

    async fn delete(
        &self,
        context: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
        if context.metadata.contains_key(peer::ABANDONED) {
            // That it has ended is what is wanted.
            let _ = named.container.kill(nix::libc::SIGKILL, true);
            named.container.main.wait().await;
        }
        let pid = named.process().pid();
        let exit = match &named.exec {
            Some(exec) => answer(delete_exec(&named.container, exec))?,
            None => {
                let span = tracing::debug_span!("delete", id = request.id);
                let delete = self.delete_container(&named.container);
                Some(answer(delete.instrument(span).await)?)
            }
        };
        Ok(DeleteResponse {
            pid,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.time()).unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = answer(self.supervisor.container(&request.id))?;
        let mut pids = answer(container.cgroup.pids().map_err(Failure::internal))?;
        if pids.is_empty() && matches!(container.main.phase(), Phase::Stopped(_)) {
            // containerd that comes back takes a task without processes for one that was forgotten, and deletes it with
            // its exit code unread. Until it is deleted the first process has an entry, as a zombie has.
            pids.extend(i32::try_from(container.main.pid()));
        }
        let execs = container.all_execs();
        let processes = pids
            .into_iter()
            .filter_map(|pid| process_info(pid, &execs))
            .collect();
        Ok(PidsResponse {
            processes,
            ..Default::default()
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
        if request.stdin {
            named.process().close_stdin();
        }
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = answer(self.supervisor.container(&request.id))?;
        let metrics = answer(stats::of(&container.cgroup))?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..Default::default()
        })
    }

    async fn connect(
        &self,
        context: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        if let Some(bundle) = context.metadata.get(peer::ANNOUNCED) {
            let bundle = bundle.concat();
            let alone = move || start::alone(Path::new(&bundle));
            answer(self.supervisor.expect(&request.id, alone))?;
        }
        // containerd asks an empty supervisor too, when it finds it again.
        let task_pid = self
            .supervisor
            .container(&request.id)
            .map_or(0, |container| container.main.pid());
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
        answer(container.pause(true).await)?;
        self.supervisor.events.publish(&TaskPaused {
            container_id: request.id,
            ..Default::default()
        });
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.supervisor.container(&request.id))?;
        answer(container.pause(false).await)?;
        self.supervisor.events.publish(&TaskResumed {
            container_id: request.id,
            ..Default::default()
        });
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        answer(Err(Failure::unimplemented("Checkpoint")))
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        answer(self.add_exec(request))?;
        Ok(Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        let named = answer(self.process(&request.id, &request.exec_id))?;
        let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        answer(
            named
                .process()
                .resize(cells(request.width), cells(request.height)),
        )?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = answer(self.supervisor.container(&request.id))?;
        let resources = answer(update::resources(&request.resources.value))?;
        answer(update::apply(&container, &resources))?;
        Ok(Empty::new())
    }
}
