//! One container's life through containerd's API, with a clock on every step.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container as ContainerRecord, CreateContainerRequest, CreateTaskRequest,
    DeleteContainerRequest, DeleteTaskRequest, KillRequest, ListContainersRequest, StartRequest,
    WaitRequest, container::Runtime,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::types::Mount;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use prost_types::Any;

use crate::client::{NAMESPACE, SNAPSHOTTER, request, wanted};
use crate::contestant::Contestant;
use crate::image::Image;
use crate::spec::{PodRole, Subject};

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Longer than any honest start, shorter than anybody's patience.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(60);
const SIGKILL: u32 = 9;

/// Where the containers live.
pub(crate) struct Yard {
    pub(crate) channel: Channel,
    /// For the FIFOs.
    pub(crate) directory: PathBuf,
    /// The network namespace that containers join.
    pub(crate) network: PathBuf,
    /// The cgroup below which each gets its own.
    pub(crate) cgroup: String,
}

/// Who the container is.
pub(crate) struct Order<'a> {
    pub(crate) id: String,
    pub(crate) contestant: &'a Contestant,
    pub(crate) image: &'a Image,
    pub(crate) args: Vec<&'static str>,
    pub(crate) pod: Option<(&'a str, PodRole)>,
}

/// Container record and snapshot exist; the task does not yet.
pub(crate) struct Container<'y> {
    yard: &'y Yard,
    id: String,
    rootfs: Vec<Mount>,
    stdout: PathBuf,
    stderr: PathBuf,
    output: File,
    errors: File,
    /// What containerd took for the snapshot: its own cost, the same for every shim.
    pub(crate) snapshot: Duration,
    /// What containerd took for the record.
    pub(crate) record: Duration,
}

/// Times since the request to create the task was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) created: Duration,
    pub(crate) started: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) deleted: Duration,
}

impl<'y> Container<'y> {
    pub(crate) async fn prepare(yard: &'y Yard, order: Order<'_>) -> Result<Self> {
        let id = order.id;
        let before = Instant::now();
        let rootfs = SnapshotsClient::new(yard.channel.clone())
            .prepare(request(PrepareSnapshotRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key: id.clone(),
                parent: order.image.snapshot.clone(),
                labels: wanted(),
            }))
            .await
            .with_context(|| format!("prepare snapshot {id}"))?
            .into_inner()
            .mounts;
        let snapshot = before.elapsed();
        let spec = Subject {
            id: &id,
            args: &order.args,
            network: &yard.network,
            cgroup: &yard.cgroup,
            pod: order.pod,
        }
        .spec();
        let before = Instant::now();
        ContainersClient::new(yard.channel.clone())
            .create(request(CreateContainerRequest {
                container: Some(ContainerRecord {
                    id: id.clone(),
                    image: order.image.name.clone(),
                    runtime: Some(Runtime {
                        name: order.contestant.runtime.to_owned(),
                        options: None,
                    }),
                    spec: Some(Any {
                        type_url: SPEC_TYPE.to_owned(),
                        value: serde_json::to_vec(&spec)?,
                    }),
                    snapshotter: SNAPSHOTTER.to_owned(),
                    snapshot_key: id.clone(),
                    labels: HashMap::new(),
                    ..Default::default()
                }),
            }))
            .await
            .with_context(|| format!("create container {id}"))?;
        let record = before.elapsed();
        let (stdout, output) = fifo(&yard.directory, &id, "stdout")?;
        let (stderr, errors) = fifo(&yard.directory, &id, "stderr")?;
        Ok(Self {
            yard,
            id,
            rootfs,
            stdout,
            stderr,
            output,
            errors,
            snapshot,
            record,
        })
    }

    /// Create, start, first byte, exit, delete.
    pub(crate) async fn live(&mut self) -> Result<Life> {
        let outcome = self.live_unexplained().await;
        self.explain(outcome)
    }

    async fn live_unexplained(&mut self) -> Result<Life> {
        let mut tasks = self.tasks();
        let byte = self.await_first_byte()?;
        let zero = Instant::now();
        let created = self.create(&mut tasks, zero).await?;
        let exit = {
            let mut tasks = tasks.clone();
            let wait = request(WaitRequest {
                container_id: self.id.clone(),
                ..Default::default()
            });
            tokio::spawn(async move { tasks.wait(wait).await })
        };
        let started = self.start(&mut tasks, zero).await?;
        let status = exit.await?.context("wait for the task")?.into_inner();
        ensure!(
            status.exit_status == 0,
            "the guest exited with {}",
            status.exit_status
        );
        self.delete(&mut tasks).await?;
        let deleted = zero.elapsed();
        let first_byte = joined(byte)?.duration_since(zero);
        Ok(Life {
            created,
            started,
            first_byte,
            deleted,
        })
    }

    /// Create, start, first byte; the guest stays. Returns the process that containerd knows.
    pub(crate) async fn hold(&mut self) -> Result<u32> {
        let outcome = self.hold_unexplained().await;
        self.explain(outcome)
    }

    async fn hold_unexplained(&mut self) -> Result<u32> {
        let byte = self.await_first_byte()?;
        let pid = self.create_and_start().await?;
        // The reader must not hold up the connection that the runtime drives.
        tokio::task::spawn_blocking(|| joined(byte)).await??;
        Ok(pid)
    }

    /// As [`Container::hold`], for a container that may have no output.
    pub(crate) async fn hold_silently(&mut self) -> Result<u32> {
        let outcome = self.create_and_start().await;
        self.explain(outcome)
    }

    async fn create_and_start(&self) -> Result<u32> {
        let mut tasks = self.tasks();
        self.create(&mut tasks, Instant::now()).await?;
        let answer = tasks
            .start(request(StartRequest {
                container_id: self.id.clone(),
                ..Default::default()
            }))
            .await
            .context("start the task")?;
        Ok(answer.into_inner().pid)
    }

    /// Kills the guest and deletes the task.
    pub(crate) async fn end(&mut self) -> Result<()> {
        end(&self.yard.channel, &self.id).await
    }

    /// Removes record and snapshot.
    pub(crate) async fn discard(self) -> Result<()> {
        discard(&self.yard.channel, &self.id).await?;
        for path in [&self.stdout, &self.stderr] {
            std::fs::remove_file(path).with_context(|| format!("remove {path:?}"))?;
        }
        Ok(())
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.yard.channel.clone())
    }

    fn await_first_byte(&self) -> Result<JoinHandle<Result<Instant>>> {
        let mut output = self.output.try_clone()?;
        Ok(std::thread::spawn(move || {
            wait_readable(&output)?;
            let at = Instant::now();
            let mut line = [0; 64];
            let length = output.read(&mut line).context("read the output")?;
            ensure!(
                line[..length].starts_with(b"hello"),
                "the guest wrote {:?}",
                String::from_utf8_lossy(&line[..length])
            );
            Ok(at)
        }))
    }

    async fn create(&self, tasks: &mut TasksClient<Channel>, zero: Instant) -> Result<Duration> {
        tasks
            .create(request(CreateTaskRequest {
                container_id: self.id.clone(),
                rootfs: self.rootfs.clone(),
                stdout: self.stdout.display().to_string(),
                stderr: self.stderr.display().to_string(),
                ..Default::default()
            }))
            .await
            .context("create the task")?;
        Ok(zero.elapsed())
    }

    async fn start(&self, tasks: &mut TasksClient<Channel>, zero: Instant) -> Result<Duration> {
        tasks
            .start(request(StartRequest {
                container_id: self.id.clone(),
                ..Default::default()
            }))
            .await
            .context("start the task")?;
        Ok(zero.elapsed())
    }

    async fn delete(&self, tasks: &mut TasksClient<Channel>) -> Result<()> {
        tasks
            .delete(request(DeleteTaskRequest {
                container_id: self.id.clone(),
            }))
            .await
            .context("delete the task")?;
        Ok(())
    }

    /// Adds what the guest or the shim wrote to its standard error.
    fn explain<T>(&mut self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| {
            let mut written = [0; 4096];
            let length = self.errors.read(&mut written).unwrap_or_default();
            let written = String::from_utf8_lossy(&written[..length]);
            error.context(format!("container {} (stderr: {written:?})", self.id))
        })
    }
}

fn joined(byte: JoinHandle<Result<Instant>>) -> Result<Instant> {
    byte.join()
        .map_err(|_| anyhow!("the thread that reads the output panicked"))?
}

/// A FIFO and our end of it. Opened for both directions, so that it never reports the end while shims come and go.
fn fifo(directory: &Path, id: &str, stream: &str) -> Result<(PathBuf, File)> {
    let path = directory.join(format!("{id}-{stream}"));
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
        .with_context(|| format!("make the fifo {path:?}"))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(&path)
        .with_context(|| format!("open the fifo {path:?}"))?;
    Ok((path, file))
}

fn wait_readable(file: &File) -> Result<()> {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let ready = poll(
        &mut polled,
        PollTimeout::try_from(FIRST_BYTE_WITHIN).unwrap_or(PollTimeout::MAX),
    )
    .context("wait for the output")?;
    ensure!(ready > 0, "no output within {FIRST_BYTE_WITHIN:?}");
    Ok(())
}

async fn end(channel: &Channel, id: &str) -> Result<()> {
    let mut tasks = TasksClient::new(channel.clone());
    let exit = {
        let mut tasks = tasks.clone();
        let wait = request(WaitRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        tokio::spawn(async move { tasks.wait(wait).await })
    };
    tasks
        .kill(request(KillRequest {
            container_id: id.to_owned(),
            signal: SIGKILL,
            all: true,
            ..Default::default()
        }))
        .await
        .with_context(|| format!("kill {id}"))?;
    exit.await?.with_context(|| format!("wait for {id}"))?;
    tasks
        .delete(request(DeleteTaskRequest {
            container_id: id.to_owned(),
        }))
        .await
        .with_context(|| format!("delete task {id}"))?;
    Ok(())
}

async fn discard(channel: &Channel, id: &str) -> Result<()> {
    ContainersClient::new(channel.clone())
        .delete(request(DeleteContainerRequest { id: id.to_owned() }))
        .await
        .with_context(|| format!("delete container {id}"))?;
    SnapshotsClient::new(channel.clone())
        .remove(request(RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.to_owned(),
        }))
        .await
        .with_context(|| format!("remove snapshot {id}"))?;
    Ok(())
}

/// Ends and removes whatever a failed measurement left. Returns what could not be removed.
pub(crate) async fn sweep(channel: &Channel) -> Result<Vec<String>> {
    let containers = ContainersClient::new(channel.clone())
        .list(request(ListContainersRequest::default()))
        .await
        .with_context(|| format!("list the containers of namespace {NAMESPACE}"))?
        .into_inner()
        .containers;
    let mut left = Vec::new();
    for container in containers {
        let ended =
            tokio::time::timeout(Duration::from_secs(10), end(channel, &container.id)).await;
        if discard(channel, &container.id).await.is_err() {
            left.push(format!("{}: {ended:?}", container.id));
        }
    }
    Ok(left)
}
