//! One container's life through containerd's API, with a clock on every step.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
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
use harness::Scratch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use prost_types::Any;

use crate::client::{NAMESPACE, SNAPSHOTTER, request, wanted};
use crate::contestant::Contestant;
use crate::image::Image;
use crate::life::Life;
use crate::netns;
use crate::programs::Sign;
use crate::spec::{PodRole, Subject};

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Longer than any honest start, shorter than anybody's patience.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(60);
/// Between two attempts to connect to a server that does not listen yet: what its first answer may seem late.
const CONNECT_EVERY: Duration = Duration::from_micros(200);
/// The variable by which all contestants take the address where a guest serves.
const ADDRESS: &str = "WASMTIME_HTTP_PROXY_SOCKET_ADDR";
/// For a container that is ended because its measurement failed.
const END_WITHIN: Duration = Duration::from_secs(10);
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
    pub(crate) args: Vec<String>,
    pub(crate) sign: Sign,
    /// Where it serves, if it does: no two at once may have the same, since they share a network.
    pub(crate) port: u16,
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
    sign: Sign,
    port: u16,
    snapshot: Duration,
    record: Duration,
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
        let env = match order.sign {
            Sign::Line => Vec::new(),
            Sign::Answer => vec![format!("{ADDRESS}=127.0.0.1:{}", order.port)],
        };
        let spec = Subject {
            id: &id,
            args: &order.args,
            env: &env,
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
                        name: order.contestant.runtime.clone(),
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
            sign: order.sign,
            port: order.port,
            snapshot,
            record,
        })
    }

    /// Create, start, first byte, exit, delete: of a guest that ends by itself.
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
        let start_sent = zero.elapsed();
        self.start(&mut tasks).await?;
        let started = zero.elapsed();
        let status = exit.await?.context("wait for the task")?.into_inner();
        let exited = zero.elapsed();
        ensure!(
            status.exit_status == 0,
            "the guest exited with {}",
            status.exit_status
        );
        self.delete(&mut tasks).await?;
        let deleted = zero.elapsed();
        let first_byte = joined(byte)?.duration_since(zero);
        Ok(Life {
            first_byte,
            deleted,
            phases: [
                self.snapshot,
                self.record,
                created,
                started - start_sent,
                first_byte.saturating_sub(start_sent),
                exited.saturating_sub(first_byte),
                deleted - exited,
            ],
        })
    }

    /// One part of a life.
    pub(crate) async fn take(&mut self, step: Step) -> Result<()> {
        let mut tasks = self.tasks();
        let outcome = match step {
            Step::Create => self.create(&mut tasks, Instant::now()).await.map(drop),
            Step::Run => self.run(&mut tasks).await,
            Step::Delete => self.delete(&mut tasks).await,
        };
        self.explain(outcome)
    }

    async fn run(&self, tasks: &mut TasksClient<Channel>) -> Result<()> {
        self.start(tasks).await?;
        let wait = request(WaitRequest {
            container_id: self.id.clone(),
            ..Default::default()
        });
        tasks.wait(wait).await.context("wait for the task")?;
        Ok(())
    }

    /// Create, start, first byte; the guest stays.
    pub(crate) async fn hold(&mut self) -> Result<Held> {
        let outcome = self.hold_unexplained().await;
        self.explain(outcome)
    }

    async fn hold_unexplained(&mut self) -> Result<Held> {
        let zero = Instant::now();
        let mut tasks = self.tasks();
        // What is to be read first must be waited for before it can come.
        let line = match self.sign {
            Sign::Line => Some(self.await_first_byte()?),
            Sign::Answer => None,
        };
        self.create(&mut tasks, zero).await?;
        let byte = match line {
            Some(line) => line,
            None => self.await_first_answer(),
        };
        let pid = self.start(&mut tasks).await?;
        // The reader must not hold up the connection that the runtime drives.
        let at = tokio::task::spawn_blocking(|| joined(byte)).await??;
        Ok(Held {
            pid,
            first_byte: at.duration_since(zero),
        })
    }

    /// Create and start, for a container that may have no output. Returns the process that containerd knows.
    pub(crate) async fn hold_silently(&mut self) -> Result<u32> {
        let mut tasks = self.tasks();
        let outcome = match self.create(&mut tasks, Instant::now()).await {
            Ok(_) => self.start(&mut tasks).await,
            Err(error) => Err(error),
        };
        self.explain(outcome)
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

    fn await_first_answer(&self) -> JoinHandle<Result<Instant>> {
        let (network, port) = (self.yard.network.clone(), self.port);
        std::thread::spawn(move || {
            netns::join(&network)?;
            first_answer(port)
        })
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

    async fn start(&self, tasks: &mut TasksClient<Channel>) -> Result<u32> {
        let answer = tasks
            .start(request(StartRequest {
                container_id: self.id.clone(),
                ..Default::default()
            }))
            .await
            .context("start the task")?;
        Ok(answer.into_inner().pid)
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

/// What is asked of a task, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    /// Start, and wait for the end.
    Run,
    Delete,
}

impl Step {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Run => "run",
            Self::Delete => "delete",
        }
    }
}

/// A guest that stays.
pub(crate) struct Held {
    /// The process that containerd knows.
    pub(crate) pid: u32,
    /// From the request to create the task.
    pub(crate) first_byte: Duration,
}

/// Asks the server at `port` of this network until it answers, and says when.
fn first_answer(port: u16) -> Result<Instant> {
    let deadline = Instant::now() + FIRST_BYTE_WITHIN;
    let mut stream = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| {
                    format!("connect to port {port} within {FIRST_BYTE_WITHIN:?}")
                });
            }
            // Nobody tells when it begins to listen.
            Err(_) => std::thread::park_timeout(CONNECT_EVERY),
        }
    };
    stream.set_read_timeout(Some(FIRST_BYTE_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).context("read the answer")?;
    let at = Instant::now();
    ensure!(
        answer[..length].starts_with(b"HTTP/1.1 200"),
        "the guest answered {:?}",
        String::from_utf8_lossy(&answer[..length])
    );
    Ok(at)
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

/// Ends and removes whatever a failed measurement left: through containerd what it knows, then by force what carries a
/// container's name; `spared` are left alone by their ids. Returns what could not be removed.
pub(crate) async fn sweep(
    channel: &Channel,
    scratch: &Scratch,
    spared: fn(&str) -> bool,
) -> Result<Vec<String>> {
    let containers = ContainersClient::new(channel.clone())
        .list(request(ListContainersRequest::default()))
        .await
        .with_context(|| format!("list the containers of namespace {NAMESPACE}"))?
        .into_inner()
        .containers;
    let mut left = Vec::new();
    for container in containers {
        let id = container.id;
        if spared(&id) {
            continue;
        }
        let ended = tokio::time::timeout(END_WITHIN, end(channel, &id)).await;
        if !matches!(ended, Ok(Ok(()))) {
            scratch.end(&id)?;
            // Now that its processes are gone.
            let _ = tokio::time::timeout(END_WITHIN, end(channel, &id)).await;
        }
        if let Err(error) = discard(channel, &id).await {
            left.push(format!("{error:#}"));
        }
    }
    Ok(left)
}
