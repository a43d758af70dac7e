//! Create: from a request to a container whose program waits for the word to go.
//!
//! What is made on the way is undone when a later step fails; what a killed supervisor leaves is
//! undone by `delete`, by the record that is written first.

mod artifact;
mod made;
mod native;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use containerd_shim_protos::types::mount::Mount;
use futures::future::{Either, FutureExt as _, select};
use jail::{
    Child, Filter, JailError, Launch, RefusalKind, Report, Rootfs, RootfsMount, SpawnRequest,
};
use plan::numbers::{Phase, Total};
use plan::{Options, Plan, Role};
use tracing::debug_span;

use crate::container::{Container, Parts, Runs};
use crate::containerd::Recorded;
use crate::failure::{Failure, Kind, Outcome, of_jail, of_refusal};
use crate::guest::{self, FromImage, Program};
use crate::incidents;
use crate::node;
use crate::pod::PodFiles;
use crate::process::Process;
use crate::stdio::{self, Streams};
use crate::supervisor::{Reserved, Supervisor};
use crate::totals;
use crate::trace::{self, Trace};

pub(crate) use self::artifact::{Compiled, compiled};
use self::made::Made;

/// A Create request in our own types.
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) bundle: String,
    pub(crate) options: Options,
    pub(crate) streams: Streams,
    pub(crate) rootfs: Vec<RootfsMount>,
    pub(crate) trace: Trace,
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
    let bundle = order.bundle.clone();
    let totals = &supervisor.totals;
    let reserved = supervisor
        .reserve(&id, &bundle)
        .inspect_err(|failure| totals.one(Total::Refused(failure.cause())))?;
    match create(supervisor, order, reserved).await {
        Ok(container) => {
            let container = Arc::new(container);
            totals.one(Total::Created(container.runs.role()));
            supervisor.insert(container.clone());
            Ok(container)
        }
        Err(Stopped::Failed(failure)) => {
            supervisor.forget(&id);
            totals.one(Total::Refused(failure.cause()));
            incidents::not_created(supervisor, &bundle, &failure);
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
    Reserved { record, given_up }: Reserved,
) -> Result<Container, Stopped> {
    let bundle = PathBuf::from(&order.bundle);
    let trace = order.trace.clone();
    let mut spec = trace
        .phase(debug_span!("spec"))
        .at_once(|| plan::read_spec(&bundle))
        .map_err(Failure::invalid)?;
    let files = PodFiles::of_container(&spec, &supervisor.config, &supervisor.namespace);
    if let Some(files) = &files {
        files.add_to(&mut spec);
    }
    let plan = trace
        .phase(debug_span!("plan"))
        .at_once(|| Plan::new(&order.id, spec, &order.options, &supervisor.config))
        .map_err(Failure::invalid)?;
    trace.know(|| trace::service(&plan).attributes);
    let begun = Instant::now();
    let made = trace
        .phase(debug_span!("cgroup"))
        .around(Made::begin(supervisor, &plan, &bundle, files));
    let made = Box::pin(supervisor.totals.timed(Phase::Cgroup, made));
    let from_image = Box::pin(from_image(supervisor, &record, &plan, &trace));
    // The one waits for the kernel, the other for containerd.
    let (made, from_image) = match select(made, from_image).await {
        Either::Left((made, from_image)) => (made, from_image.left_future()),
        Either::Right((from_image, made)) => {
            (made.await, std::future::ready(from_image).right_future())
        }
    };
    let mut made = made?;
    let prepared = tokio::select! {
        biased;
        prepared = prepare(supervisor, &order, &plan, &bundle, &mut made, from_image) => prepared.map_err(Stopped::Failed),
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
        labels: made.record.labels,
        trace,
    };
    if let Runs::Guest(_) = parts.runs {
        supervisor.totals.phase(Phase::Create, begun.elapsed());
    }
    Ok(Container::new(parts, main))
}

/// What the image says of the program; of a pod's own container nobody asks.
async fn from_image(
    supervisor: &Supervisor,
    record: &Recorded,
    plan: &Plan,
    trace: &Trace,
) -> Outcome<FromImage> {
    if plan.role == Role::Pod {
        return Ok(FromImage::Rootfs);
    }
    let asked = trace.phase(debug_span!("image")).around(guest::from_image(
        &supervisor.containerd,
        record,
        plan,
    ));
    supervisor.totals.timed(Phase::Image, asked).await
}

async fn prepare(
    supervisor: &Supervisor,
    order: &Order,
    plan: &Plan,
    bundle: &Path,
    made: &mut Made,
    from_image: impl Future<Output = Outcome<FromImage>>,
) -> Outcome<(Child, Runs)> {
    let trace = &order.trace;
    if plan.role == Role::Pod {
        let holder = trace
            .phase(debug_span!("hold"))
            .at_once(|| jail::hold_pod(&plan.jail, &made.cgroup))
            .map_err(|error| of_jail(&error))?;
        made.note(supervisor, holder.pid()).await?;
        return Ok((holder, Runs::Holder));
    }
    let Some(guest_plan) = &plan.guest else {
        return Err(Failure::internal(anyhow::anyhow!(
            "a container without a guest plan"
        )));
    };
    let totals = &supervisor.totals;
    let streams = trace.phase(debug_span!("streams")).around(stdio::open(
        &order.streams,
        &order.id,
        &supervisor.namespace,
    ));
    let (from_image, streams) = tokio::join!(from_image, streams);
    let (opened, from_image) = (streams?, from_image?);
    let rootfs = trace
        .phase(debug_span!("rootfs"))
        .at_once(|| assemble(order, plan, bundle))?;
    let rootfs = made.rootfs.insert(rootfs);
    let program = match from_image {
        FromImage::Layer(bytes) => Program::Wasm(bytes),
        FromImage::Rootfs => {
            let find = guest::in_rootfs(rootfs.dir(), guest_plan, &plan.jail.mounts);
            trace.phase(debug_span!("find")).around(find).await?
        }
    };
    let bytes = match program {
        Program::Native => {
            let native = native::create(supervisor, order, plan, bundle, opened, made);
            return trace.phase(debug_span!("native")).around(native).await;
        }
        Program::Wasm(bytes) => bytes,
    };
    let name = bytes.name.clone();
    let runner = node::runner(order.options.runner.as_deref(), &supervisor.config)
        .map_err(Failure::invalid)?;
    let phase = trace.phase(debug_span!("artifact"));
    let inside = phase.inside();
    let compiled = phase.around(compiled(
        supervisor,
        &runner,
        &guest_plan.engine,
        bytes,
        &inside,
    ));
    let compiled = totals.timed(Phase::Artifact, compiled).await?;
    let launch = Launch {
        jail: plan.jail.clone(),
        guest: guest_plan.clone(),
        seccomp: filter(plan)?,
        tracing: trace.orders(),
    };
    let (ends, held) = opened.ends()?;
    made.held = held;
    let page = totals::page(&made.dir);
    let begun = Instant::now();
    let request = SpawnRequest {
        runner: &runner,
        launch: &launch,
        artifact: compiled.artifact.descriptor(),
        rootfs,
        stdio: [ends.stdin, ends.stdout, ends.stderr].map(Some),
        terminal: order.streams.terminal,
        cgroup: &made.cgroup,
        numbers: page.as_ref().map(AsFd::as_fd),
    };
    let child = trace
        .phase(debug_span!("spawn"))
        .at_once(|| jail::spawn(request))
        .map_err(|error| of_jail(&error))?;
    totals.phase(Phase::Spawn, begun.elapsed());
    // The runner is on its way meanwhile.
    let ready = trace
        .phase(debug_span!("runner"))
        .around(ready(&child, &compiled, &name, trace));
    let (noted, stands) = tokio::join!(
        trace
            .phase(debug_span!("note"))
            .around(made.note(supervisor, child.pid())),
        totals.timed(Phase::Runner, ready),
    );
    noted?;
    stands?;
    if launch.tracing.is_some() {
        trace::follow(trace, &child, trace::service(plan));
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

/// Waits until the runner stands in its jail with the program linked. An artifact that it cannot use is not kept.
pub(crate) async fn ready(
    child: &Child,
    compiled: &Compiled,
    name: &str,
    trace: &Trace,
) -> Outcome<()> {
    let control = child
        .control()
        .ok_or_else(|| Failure::internal(anyhow::anyhow!("a runner without a wire")))?;
    loop {
        jail::readable(control).await.map_err(Failure::internal)?;
        match child.read_report() {
            Ok(Some(Report::Ready(laps))) => {
                trace::laps(trace, &laps);
                tracing::debug!(open = ?laps.open, program = ?laps.program, enter = ?laps.enter, "laps");
                return Ok(());
            }
            Ok(Some(Report::Refused(refusal))) => {
                if refusal.kind == RefusalKind::BadArtifact {
                    compiled.discard();
                }
                return Err(of_refusal(&refusal).of(name));
            }
            // That it has ended is said once it has begun; who says it now is silent of what is asked.
            Ok(None | Some(Report::Ended(_))) => {}
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
