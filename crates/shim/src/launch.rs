//! Create: from a request to a container whose program waits for the word to go.
//!
//! What is made on the way is undone when a later step fails; what a killed supervisor leaves is
//! undone by `delete`, by the record that is written first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use containerd_shim_protos::types::mount::Mount;
use jail::{
    Cgroup, Child, Filter, JailError, Launch, Refusal, RefusalKind, Report, Rootfs, RootfsMount,
    SpawnRequest,
};
use plan::{CgroupDriver, Digest, EngineSettings, MountSource, Options, Plan, Role};
use store::{Artifact, Limits, Store, StoreError};
use tokio::sync::oneshot;
use tracing::{Instrument as _, debug_span};

use crate::compile::Compiler;
use crate::container::{Container, Parts, Runs};
use crate::failure::{Failure, Kind, Outcome};
use crate::guest::{self, Bytes, FromImage, Program};
use crate::native::Native;
use crate::node;
use crate::pod::PodFiles;
use crate::process::Process;
use crate::record::{Record, RunDir, start_time};
use crate::stdio::{self, Held, Opened, Streams};
use crate::supervisor::Supervisor;

/// A Create request in our own types.
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) bundle: String,
    pub(crate) options: Options,
    pub(crate) streams: Streams,
    pub(crate) rootfs: Vec<RootfsMount>,
}

/// A mount of the rootfs, as containerd's snapshotter wants it.
pub(crate) fn rootfs_mount(mount: &Mount) -> RootfsMount {
    RootfsMount {
        fstype: mount.type_.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    }
}

/// Makes the container one of the supervisor's.
pub(crate) async fn admit(supervisor: &Supervisor, order: Order) -> Outcome<Arc<Container>> {
    let id = order.id.clone();
    let given_up = supervisor.reserve(&id, &order.bundle)?;
    match create(supervisor, order, given_up).await {
        Ok(container) => {
            let container = Arc::new(container);
            supervisor.insert(container.clone());
            Ok(container)
        }
        Err(Stopped::Failed(failure)) => {
            supervisor.forget(&id);
            Err(failure)
        }
        Err(Stopped::GivenUp) => {
            supervisor.forget(&id);
            // Shutdown came before this one was gone.
            supervisor.end_if_empty();
            Err(Failure::new(
                Kind::Precondition,
                format!("container {id} was given up"),
            ))
        }
    }
}

/// Why there is no container.
enum Stopped {
    /// It could not be made.
    Failed(Failure),
    /// Nobody wants it any more.
    GivenUp,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Makes the container, or leaves nothing, also when it is given up on the way.
async fn create(
    supervisor: &Supervisor,
    order: Order,
    given_up: oneshot::Receiver<()>,
) -> Result<Container, Stopped> {
    let bundle = PathBuf::from(&order.bundle);
    let mut spec = debug_span!("spec")
        .in_scope(|| plan::read_spec(&bundle))
        .map_err(Failure::invalid)?;
    let files = PodFiles::of_container(&spec, &supervisor.config, &supervisor.namespace);
    if let Some(files) = &files {
        files.add_to(&mut spec);
    }
    let plan = debug_span!("plan")
        .in_scope(|| Plan::new(&order.id, spec, &order.options, &supervisor.config))
        .map_err(Failure::invalid)?;
    let mut made = Made::begin(supervisor, &plan, &bundle, files)
        .instrument(debug_span!("cgroup"))
        .await?;
    let prepared = tokio::select! {
        biased;
        prepared = prepare(supervisor, &order, &plan, &bundle, &mut made) => prepared.map_err(Stopped::Failed),
        // What runs for it by then (a compile helper, a runner) is killed by being dropped.
        Ok(()) = given_up => Err(Stopped::GivenUp),
    };
    let (child, runs) = match prepared {
        Ok(prepared) => prepared,
        Err(stopped) => {
            made.undo().await;
            return Err(stopped);
        }
    };
    let size = plan.spec.process().as_ref().and_then(plan::console_size);
    let main = Process::new(format!("container {}", plan.id), order.streams, size);
    main.made(child, made.held);
    let parts = Parts {
        id: plan.id,
        bundle: order.bundle,
        cgroup: made.cgroup,
        runs,
        dir: made.dir,
        rootfs: made.rootfs,
        created: SystemTime::now(),
    };
    Ok(Container::new(parts, main))
}

/// What exists of a container that is being made.
struct Made {
    dir: RunDir,
    record: Record,
    cgroup: Cgroup,
    rootfs: Option<Rootfs>,
    held: Held,
    native: Option<Native>,
    /// What it shares with its pod, where we keep that.
    files: Option<PodFiles>,
}

impl Made {
    /// The record comes first, so that `delete` finds whatever follows.
    async fn begin(
        supervisor: &Supervisor,
        plan: &Plan,
        bundle: &Path,
        files: Option<PodFiles>,
    ) -> Outcome<Self> {
        let dir = RunDir::new(
            &supervisor.config.run,
            &supervisor.namespace,
            plan.id.as_str(),
        );
        let record = Record {
            pid: 0,
            start_time: 0,
            cgroup: plan.cgroup.path.clone(),
            systemd: plan.cgroup.driver == CgroupDriver::Systemd,
            native: false,
            supervisor: supervisor.incarnation,
            bundle: Some(bundle.to_owned()),
        };
        let of_cgroup = plan.cgroup.clone();
        // The kernel has one lock for all cgroups of the node, under which it waits for others to leave theirs.
        let (dir, record, cgroup) = supervisor
            .aside(move || {
                let failed = |error| {
                    Failure::internal(
                        anyhow::Error::new(error).context("keep the container's record"),
                    )
                };
                dir.create().map_err(failed)?;
                dir.write(&record).map_err(failed)?;
                match Cgroup::create(&of_cgroup) {
                    Ok(cgroup) => Ok((dir, record, cgroup)),
                    Err(error) => {
                        let _ = dir.remove();
                        Err(of_jail(&error))
                    }
                }
            })
            .await?;
        Ok(Self {
            dir,
            record,
            cgroup,
            rootfs: None,
            held: Held::default(),
            native: None,
            files,
        })
    }

    /// Notes the process, for `delete`.
    fn note(&mut self, pid: i32) -> Outcome<()> {
        self.record.pid = pid;
        self.record.start_time = start_time(pid).unwrap_or(0);
        self.dir.write(&self.record).map_err(|error| {
            Failure::internal(anyhow::Error::new(error).context("keep the container's record"))
        })
    }

    async fn undo(self) {
        self.held.close().await;
        if let Some(native) = &self.native
            && let Err(failure) = native.delete().await
        {
            tracing::warn!(%failure, "a native container that was not created is not removed either");
        }
        let mut results = vec![self.cgroup.removed().await.map_err(anyhow::Error::from)];
        if let Some(rootfs) = &self.rootfs {
            results.push(rootfs.unmount().map_err(Into::into));
        }
        results.push(self.dir.remove().map_err(Into::into));
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(
                error = format!("{error:#}"),
                "something of a container that was not created stays"
            );
        }
    }
}

async fn prepare(
    supervisor: &Supervisor,
    order: &Order,
    plan: &Plan,
    bundle: &Path,
    made: &mut Made,
) -> Outcome<(Child, Runs)> {
    if plan.role == Role::Pod {
        let holder = debug_span!("hold")
            .in_scope(|| jail::hold_pod(&plan.jail, &made.cgroup))
            .map_err(|error| of_jail(&error))?;
        made.note(holder.pid())?;
        return Ok((holder, Runs::Holder));
    }
    let Some(guest_plan) = &plan.guest else {
        return Err(Failure::internal(anyhow::anyhow!(
            "a container without a guest plan"
        )));
    };
    let from_image =
        guest::from_image(&supervisor.containerd, plan).instrument(debug_span!("image"));
    let streams = stdio::open(&order.streams, &order.id, &supervisor.namespace)
        .instrument(debug_span!("streams"));
    let (from_image, streams) = tokio::join!(from_image, streams);
    let (opened, from_image) = (streams?, from_image?);
    let rootfs = debug_span!("rootfs").in_scope(|| assemble(order, plan, bundle))?;
    let rootfs = made.rootfs.insert(rootfs);
    let program = match from_image {
        FromImage::Layer(bytes) => Program::Wasm(bytes),
        FromImage::Rootfs => {
            guest::in_rootfs(rootfs.dir(), guest_plan, &plan.jail.mounts)
                .instrument(debug_span!("find"))
                .await?
        }
    };
    let bytes = match program {
        Program::Native => return native(order, plan, bundle, opened, made).await,
        Program::Wasm(bytes) => bytes,
    };
    let name = bytes.name.clone();
    let runner = node::runner(order.options.runner.as_deref(), &supervisor.config)
        .map_err(Failure::invalid)?;
    let compiled = compiled(supervisor, &runner, &guest_plan.engine, bytes)
        .instrument(debug_span!("artifact"))
        .await?;
    let launch = Launch {
        jail: plan.jail.clone(),
        guest: guest_plan.clone(),
        seccomp: filter(plan)?,
    };
    let (ends, held) = opened.ends()?;
    made.held = held;
    let request = SpawnRequest {
        runner: &runner,
        launch: &launch,
        artifact: compiled.artifact.descriptor(),
        rootfs,
        stdio: [ends.stdin, ends.stdout, ends.stderr].map(Some),
        terminal: order.streams.terminal,
        cgroup: &made.cgroup,
    };
    let child = debug_span!("spawn")
        .in_scope(|| jail::spawn(request))
        .map_err(|error| of_jail(&error))?;
    debug_span!("note").in_scope(|| made.note(child.pid()))?;
    if let Some(refusal) = ready(&child).instrument(debug_span!("runner")).await? {
        if refusal.kind == RefusalKind::BadArtifact {
            compiled.discard();
        }
        return Err(of_refusal(&refusal).of(&name));
    }
    let beside = Beside {
        runner,
        launch,
        compiled,
        name,
    };
    Ok((child, Runs::Guest(Box::new(beside))))
}

/// What another guest in the same jail needs of the container's own.
pub(crate) struct Beside {
    pub(crate) runner: PathBuf,
    pub(crate) launch: Launch,
    /// The container's own program.
    pub(crate) compiled: Compiled,
    /// How messages call it.
    pub(crate) name: String,
}

/// The rootfs as the request has it, or the directory that the spec names.
fn assemble(order: &Order, plan: &Plan, bundle: &Path) -> Outcome<Rootfs> {
    let assembled = if order.rootfs.is_empty() {
        let root = plan
            .spec
            .root()
            .as_ref()
            .map_or(Path::new("rootfs"), |root| root.path());
        Rootfs::directory(&bundle.join(root))
    } else {
        Rootfs::assemble(&order.rootfs, &bundle.join("rootfs"))
    };
    assembled.map_err(|error| of_jail(&error))
}

/// A program in the store.
pub(crate) struct Compiled {
    pub(crate) artifact: Artifact,
    store: Store,
    digest: Digest,
    fingerprint: String,
}

impl Compiled {
    /// Takes it out of the store, so that the next start compiles it anew.
    pub(crate) fn discard(&self) {
        if let Err(error) = self.store.discard(&self.digest, &self.fingerprint) {
            tracing::warn!(%error, digest = %self.digest, "an artifact that cannot be used stays");
        }
    }
}

/// The compiled program: from the store, or made now.
pub(crate) async fn compiled(
    supervisor: &Supervisor,
    runner: &Path,
    engine: &EngineSettings,
    bytes: Bytes,
) -> Outcome<Compiled> {
    let config = &supervisor.config;
    let limits = Limits {
        max_bytes: config.store.max_bytes,
    };
    let store = Store::open(&config.store.path, limits).map_err(of_store)?;
    let fingerprint = node::fingerprint(runner, engine, &store).map_err(Failure::internal)?;
    let digest: Digest = bytes.digest;
    let artifact = match store.lookup(&digest, &fingerprint).map_err(of_store)? {
        Some(artifact) => artifact,
        None => {
            let compiler = Compiler {
                runner,
                engine,
                limits: &config.compile,
                fingerprint: &fingerprint,
            };
            let _turn = supervisor.flights.turn(&digest).await;
            compiler.compile(&store, bytes).await?
        }
    };
    Ok(Compiled {
        artifact,
        store,
        digest,
        fingerprint,
    })
}

async fn native(
    order: &Order,
    plan: &Plan,
    bundle: &Path,
    opened: Opened,
    made: &mut Made,
) -> Outcome<(Child, Runs)> {
    let mapped = |mount: &plan::MountPlan| {
        matches!(
            mount.source,
            MountSource::Bind {
                owners: Some(_),
                ..
            }
        )
    };
    if let Some(mount) = plan.jail.mounts.iter().find(|mount| mapped(mount)) {
        return Err(Failure::new(
            Kind::Unimplemented,
            format!(
                "mount {}: a native container in a pod with a user namespace of its own (hostUsers: false) is not implemented: libcontainer cannot map the owners of a mount's files",
                mount.destination
            ),
        ));
    }
    let state = made.dir.native();
    std::fs::create_dir_all(&state).map_err(Failure::internal)?;
    // libcontainer looks for the rootfs where the spec says; there it must be mounted.
    let rootfs = made
        .rootfs
        .as_mut()
        .ok_or_else(|| Failure::internal(anyhow::anyhow!("no rootfs")))?;
    if !order.rootfs.is_empty() {
        rootfs
            .attach(&bundle.join("rootfs"))
            .map_err(|error| of_jail(&error))?;
    }
    if let Some(files) = &made.files {
        files.share_memory().map_err(|error| of_jail(&error))?;
        // libcontainer reads what is on disk.
        plan.spec
            .save(bundle.join("config.json"))
            .map_err(Failure::internal)?;
    }
    made.record.native = true;
    made.note(0)?;
    let native = Native::new(plan.id.as_str(), state);
    made.native = Some(native.clone());
    let systemd = plan.cgroup.driver == CgroupDriver::Systemd;
    let (pid, held) = native.create(bundle, systemd, opened).await?;
    made.held = held;
    made.note(pid)?;
    let child = Child::adopt(pid).map_err(|error| of_jail(&error))?;
    Ok((child, Runs::Native(native)))
}

/// The spec's seccomp profile as the kernel takes it.
fn filter(plan: &Plan) -> Outcome<Option<Filter>> {
    let profile = plan
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let compiled = profile.map(Filter::compile).transpose();
    compiled.map_err(|error| Failure::new(Kind::Invalid, format!("linux.seccomp: {error}")))
}

/// Waits until the runner stands in its jail with the program linked; gives the reason if it cannot.
pub(crate) async fn ready(child: &Child) -> Outcome<Option<Refusal>> {
    let control = child
        .control()
        .ok_or_else(|| Failure::internal(anyhow::anyhow!("a runner without a wire")))?;
    loop {
        jail::readable(control).await.map_err(Failure::internal)?;
        match child.read_report() {
            Ok(Some(Report::Ready(laps))) => {
                tracing::debug!(open = ?laps.open, program = ?laps.program, enter = ?laps.enter, "laps");
                return Ok(None);
            }
            Ok(Some(Report::Refused(refusal))) => return Ok(Some(refusal)),
            Ok(None) => {}
            Err(error @ JailError::Silent { .. }) => return Err(silent(child, &error).await),
            Err(error) => return Err(of_jail(&error)),
        }
    }
}

/// Of a runner that ended without a word: it was killed, by whoever may kill in its cgroup or its pid namespace, or for
/// want of memory.
async fn silent(child: &Child, error: &JailError) -> Failure {
    // It has closed the wire, so its end is near.
    if jail::readable(child.pidfd()).await.is_ok()
        && let Ok(Some(status @ 129..)) = child.reap()
    {
        let message = format!("{error}: it was killed by signal {}", status - 128);
        return Failure::new(Kind::Precondition, message);
    }
    of_jail(error)
}

pub(crate) fn of_refusal(refusal: &Refusal) -> Failure {
    let kind = match refusal.kind {
        RefusalKind::InvalidProgram | RefusalKind::MissingImport => Kind::Invalid,
        RefusalKind::NotFound => Kind::NotFound,
        RefusalKind::Mount | RefusalKind::Permission | RefusalKind::Unsupported => {
            Kind::Precondition
        }
        RefusalKind::BadArtifact | RefusalKind::Internal => Kind::Internal,
    };
    Failure::new(kind, &refusal.message)
}

pub(crate) fn of_jail(error: &JailError) -> Failure {
    let kind = match error {
        JailError::Volume { source, .. } | JailError::Namespace { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Kind::NotFound
        }
        JailError::RootfsOption { .. }
        | JailError::NamespaceKind { .. }
        | JailError::Nul { .. } => Kind::Invalid,
        JailError::Volume { .. }
        | JailError::Namespace { .. }
        | JailError::Rootfs { .. }
        | JailError::Mount { .. }
        | JailError::Inside { .. }
        | JailError::Systemd { .. }
        | JailError::NoCgroups
        | JailError::Ended
        | JailError::Runner { .. } => Kind::Precondition,
        JailError::System { source, .. } if is_want(source) => Kind::Exhausted,
        JailError::Cgroup { .. }
        | JailError::System { .. }
        | JailError::Unmount { .. }
        | JailError::Wire { .. }
        | JailError::Silent { .. }
        | JailError::Threads { .. } => Kind::Internal,
    };
    let message = error.one_line();
    match error {
        JailError::System { source, .. } if source.raw_os_error() == Some(nix::libc::EAGAIN) => {
            Failure::new(kind, format!("{message}: {NO_PROCESS}"))
        }
        _ => Failure::new(kind, message),
    }
}

/// What the kernel means by "try again" where a process is made.
const NO_PROCESS: &str = "there are as many processes as there may be, in containerd's cgroup (pids.max; TasksMax= of its systemd service) or on the node (kernel.pid_max, kernel.threads-max)";

/// Whether the system has no more of something: processes, descriptors, memory.
fn is_want(error: &std::io::Error) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EAGAIN | EMFILE | ENFILE | ENOMEM)
    )
}

pub(crate) fn of_store(error: StoreError) -> Failure {
    let kind = match error.fault() {
        store::Fault::Exhausted => Kind::Exhausted,
        store::Fault::Precondition => Kind::Precondition,
        store::Fault::Internal => Kind::Internal,
    };
    Failure::new(kind, format!("{:#}", anyhow::Error::new(error)))
}
