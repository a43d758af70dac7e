//! containerd's Sandbox service (`sandboxer = "shim"` of a handler, containerd 2.x): the pod itself without a container,
//! a snapshot and a task of containerd's for it. Wire types in, wire types out.
//!
//! What it makes is the same holder, with the same record on disk, that Create makes of a pod's own container; the spec
//! that containerd writes there is written here, and what it keeps for the pod's containers is kept here ([`PodFiles`]).
//!
//! ```text
//! CreateSandbox -> Created -- StartSandbox --> Running -- StopSandbox, or its end --> Stopped -- ShutdownSandbox --> gone
//! ```

mod config;
mod files;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest,
    SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest,
    StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest,
    WaitSandboxResponse,
};
use containerd_shim_protos::sandbox_async::Sandbox;
use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use image::Platform;
use plan::ContainerId;

use self::config::PodConfig;
use crate::container::{Container, Runs};
use crate::events::timestamp;
use crate::failure::{Failure, Outcome, answer};
use crate::launch::{self, Order};
use crate::process::Phase;
use crate::stdio::Streams;
use crate::supervisor::Supervisor;
use crate::trace::Trace;
use crate::{options, stats};

pub(crate) use self::files::PodFiles;

/// CRI's names for what a pod is (`PodSandboxState`).
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";
/// What containerd calls an OCI configuration (its `core/runtime/typeurl.go`).
const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Where `start` leaves the runtime's options, in the bundle: CreateSandbox brings none.
const OPTIONS: &str = "runtime-options";

/// Keeps the runtime's options (a protobuf `Any`) for CreateSandbox.
pub(crate) fn keep_options(bundle: &Path, options: &[u8]) -> anyhow::Result<()> {
    std::fs::write(bundle.join(OPTIONS), options).context("keep the runtime options in the bundle")
}

fn kept_options(bundle: &Path) -> anyhow::Result<plan::Options> {
    let bytes = std::fs::read(bundle.join(OPTIONS)).context("read the runtime options")?;
    let options = Any::parse_from_bytes(&bytes).context("decode the runtime options")?;
    options::decode(Some(&options))
}

pub(crate) struct PodService {
    supervisor: Arc<Supervisor>,
}

impl PodService {
    pub(crate) const fn new(supervisor: Arc<Supervisor>) -> Self {
        Self { supervisor }
    }

    fn pod(&self, id: &str) -> Outcome<Arc<Container>> {
        let pod = self.supervisor.container(id)?;
        match pod.runs {
            Runs::Holder => Ok(pod),
            Runs::Guest(_) | Runs::Native(_) => Err(Failure::no_container(id)),
        }
    }

    async fn create_pod(&self, request: CreateSandboxRequest, trace: Trace) -> Outcome<()> {
        // It stands in paths.
        let id = ContainerId::new(&request.sandbox_id).map_err(Failure::invalid)?;
        let config = PodConfig::decode(request.options.as_ref()).map_err(Failure::invalid)?;
        let bundle = Path::new(&request.bundle_path);
        let options = kept_options(bundle).map_err(Failure::invalid)?;
        let spec = config.spec(&id, &request.netns_path)?;
        std::fs::write(bundle.join("config.json"), spec.to_string())
            .context("write the pod's config.json")
            .map_err(Failure::internal)?;
        let order = Order {
            id: request.sandbox_id,
            bundle: request.bundle_path,
            options,
            streams: Streams::default(),
            rootfs: Vec::new(),
            trace,
        };
        let pod = launch::admit(&self.supervisor, order).await?;
        let holder = pod.clone();
        tokio::spawn(async move {
            let exit = holder.watch().await;
            tracing::info!(id = %holder.id, status = exit.status, "pod exits");
            holder.main.stopped(exit);
        });
        if let Err(error) = PodFiles::of(&pod.dir).write(&config) {
            let failure = Failure::internal(error);
            self.remove(&pod).await?;
            return Err(failure);
        }
        tracing::info!(id = %pod.id, pid = pod.main.pid(), "pod created");
        Ok(())
    }

    /// Ends the holder, which lets nothing of the pod outlive it where they share a pid namespace.
    async fn stop(&self, pod: &Container) -> Outcome<()> {
        match pod.kill(nix::libc::SIGKILL, false) {
            Err(failure) if !failure.is_not_found() => return Err(failure),
            _ => {}
        }
        pod.main.wait().await;
        Ok(())
    }

    async fn remove(&self, pod: &Container) -> Outcome<()> {
        self.stop(pod).await?;
        self.supervisor.goes(pod.id.as_str());
        pod.delete().await?;
        self.supervisor.forget(pod.id.as_str());
        tracing::info!(id = %pod.id, "pod removed");
        Ok(())
    }

    async fn shut_down(&self, id: &str) -> Outcome<()> {
        self.supervisor.give_up(id);
        if let Ok(pod) = self.pod(id) {
            self.remove(&pod).await?;
        }
        self.supervisor.end_if_empty();
        Ok(())
    }
}

fn config_json(pod: &Container) -> Outcome<Vec<u8>> {
    std::fs::read(Path::new(&pod.bundle).join("config.json"))
        .context("read the pod's config.json")
        .map_err(Failure::internal)
}

/// What `crictl inspectp` shows, with the names that containerd's own pods have there
/// (`internal/cri/server/podsandbox/types`, SandboxInfo).
fn info(pod: &Container) -> Outcome<String> {
    let spec: serde_json::Value =
        serde_json::from_slice(&config_json(pod)?).map_err(Failure::internal)?;
    let status = match pod.main.phase() {
        Phase::Created => "created",
        Phase::Running => "running",
        Phase::Stopped(_) => "stopped",
    };
    Ok(serde_json::json!({
        "pid": pod.main.pid(),
        "processStatus": status,
        "runtimeSpec": spec,
    })
    .to_string())
}

#[async_trait]
impl Sandbox for PodService {
    async fn create_sandbox(
        &self,
        context: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        let id = request.sandbox_id.clone();
        // In a task of its own, for the same reason as the Task service's Create.
        let service = Self::new(self.supervisor.clone());
        let span = tracing::debug_span!("create", id);
        let phase = self.supervisor.traces.begin(span, &id, &context.metadata);
        let trace = phase.inside();
        let create = async move { service.create_pod(request, trace).await };
        let created = tokio::spawn(phase.around(create))
            .await
            .unwrap_or_else(|error| Err(Failure::internal(error)));
        if let Err(failure) = &created {
            tracing::warn!(id, %failure, "pod not created");
        }
        answer(created.map(|()| CreateSandboxResponse::default()))
    }

    async fn start_sandbox(
        &self,
        context: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let pod = answer(self.pod(&request.sandbox_id))?;
        let span = tracing::debug_span!("start", id = request.sandbox_id);
        let phase = pod.trace.again(span, &context.metadata);
        answer(phase.around(pod.start()).await)?;
        Ok(StartSandboxResponse {
            pid: pod.main.pid(),
            created_at: MessageField::some(timestamp(pod.created)),
            spec: MessageField::some(Any {
                type_url: SPEC.to_owned(),
                value: answer(config_json(&pod))?,
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    async fn platform(
        &self,
        _: &TtrpcContext,
        _: PlatformRequest,
    ) -> ttrpc::Result<PlatformResponse> {
        let host = Platform::host();
        let mut response = PlatformResponse::default();
        let platform = response.platform.mut_or_insert_default();
        // containerd's normal form of arm64 names the variant.
        if host.architecture == "arm64" {
            "v8".clone_into(&mut platform.variant);
        }
        platform.os = host.os;
        platform.architecture = host.architecture;
        Ok(response)
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        let pod = answer(self.pod(&request.sandbox_id))?;
        answer(self.stop(&pod).await)?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        let exit = answer(self.pod(&request.sandbox_id))?.main.wait().await;
        Ok(WaitSandboxResponse {
            exit_status: exit.status,
            exited_at: exit.time(),
            ..Default::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let pod = answer(self.pod(&request.sandbox_id))?;
        let mut response = SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            state: NOT_READY.to_owned(),
            created_at: MessageField::some(timestamp(pod.created)),
            ..Default::default()
        };
        if request.verbose {
            response.info.insert("info".to_owned(), answer(info(&pod))?);
        }
        match pod.main.phase() {
            Phase::Created => {}
            Phase::Running => {
                response.pid = pod.main.pid();
                READY.clone_into(&mut response.state);
            }
            Phase::Stopped(exit) => response.exited_at = exit.time(),
        }
        Ok(response)
    }

    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: PingRequest,
    ) -> ttrpc::Result<PingResponse> {
        answer(self.pod(&request.sandbox_id))?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        answer(self.shut_down(&request.sandbox_id).await)?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        let pod = answer(self.pod(&request.sandbox_id))?;
        let mut response = SandboxMetricsResponse::default();
        let metrics = response.metrics.mut_or_insert_default();
        metrics.timestamp = MessageField::some(timestamp(std::time::SystemTime::now()));
        metrics.id = request.sandbox_id;
        metrics.data = MessageField::some(answer(stats::of(&pod.cgroup))?);
        Ok(response)
    }
}
