mod events;
mod exec;
mod spec;
mod stdio;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use containerd_client::services::v1 as api;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::types::Mount;
use prost_types::Any;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::{Containerd, runtime, unique};

pub use events::Events;
pub use exec::{Exec, ExecBuilder};
pub use stdio::Stdio;

/// How long a task may run before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(120);

type SpecEdit = Box<dyn FnOnce(&mut Value) + Send>;

/// A task to be made: an image, and a description in the way of `ctr run`.
pub struct TaskBuilder<'a> {
    containerd: &'a Containerd,
    namespace: String,
    image: String,
    id: String,
    runtime: String,
    options: Option<Any>,
    labels: HashMap<String, String>,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    spec: spec::Spec,
    edits: Vec<SpecEdit>,
}

impl<'a> TaskBuilder<'a> {
    pub(crate) fn new(containerd: &'a Containerd, image: &str) -> Self {
        let id = format!("c{}", unique());
        let cgroup = format!("{}/{id}", containerd.scratch().cgroup_parent());
        Self {
            containerd,
            namespace: "default".to_owned(),
            image: image.to_owned(),
            id,
            runtime: runtime().to_owned(),
            options: None,
            labels: HashMap::new(),
            stdin: Stdio::Null,
            stdout: Stdio::Fifo,
            stderr: Stdio::Fifo,
            spec: spec::Spec {
                cgroup,
                ..spec::Spec::default()
            },
            edits: Vec::new(),
        }
    }

    /// The runtime type; ours unless told.
    #[must_use]
    pub fn runtime(mut self, runtime: &str) -> Self {
        self.runtime = runtime.to_owned();
        self
    }

    /// The runtime's options, in the container's record, where CRI has them: containerd passes them on with Create.
    #[must_use]
    pub fn options(mut self, options: Any) -> Self {
        self.options = Some(options);
        self
    }

    /// The containerd namespace; `default` unless told.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    /// The container's id; a random one unless told. The cgroup keeps the random name.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// The whole command line. Without it: the image's entry point and command.
    #[must_use]
    pub fn args<'s>(mut self, args: impl IntoIterator<Item = &'s str>) -> Self {
        self.spec.args = args.into_iter().map(str::to_owned).collect();
        self
    }

    /// Adds a variable to the image's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.spec.env.push(format!("{name}={value}"));
        self
    }

    /// The working directory; the image's, else `/`, unless told.
    #[must_use]
    pub fn cwd(mut self, cwd: &str) -> Self {
        self.spec.cwd = Some(cwd.to_owned());
        self
    }

    /// User and group; root unless told.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.spec.user = (uid, gid);
        self
    }

    /// Binds a path of the host to one of the container. Options as in the OCI spec, as in `["ro"]`.
    #[must_use]
    pub fn mount<'s>(
        mut self,
        source: impl Into<PathBuf>,
        destination: &str,
        options: impl IntoIterator<Item = &'s str>,
    ) -> Self {
        let options = options.into_iter().map(str::to_owned).collect();
        self.spec
            .mounts
            .push((source.into(), destination.to_owned(), options));
        self
    }

    /// Adds an annotation to the spec.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.spec
            .annotations
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// Adds a label to the container's record.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves the container in the host's network namespace.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.spec.host_network = true;
        self
    }

    /// Gives the process a terminal, whose other end is the stdout FIFO.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.spec.terminal = true;
        self.stderr = Stdio::Null;
        self
    }

    /// Where stdin comes from; nowhere unless told.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = stdin;
        self
    }

    /// Where stdout goes; to a FIFO that the test reads, unless told.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = stdout;
        self
    }

    /// Where stderr goes; to a FIFO that the test reads, unless told.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = stderr;
        self
    }

    /// Changes the finished OCI spec.
    #[must_use]
    pub fn spec(mut self, edit: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Makes the container's record and snapshot, without a task. For tests that time the task alone.
    ///
    /// # Errors
    /// What containerd says.
    pub async fn prepare(self) -> Result<Prepared<'a>> {
        let client = Client {
            channel: self.containerd.channel().await?,
            namespace: self.namespace.clone(),
        };
        let image = client
            .image(&self.image)
            .await
            .with_context(|| format!("read the image {}", self.image))?;
        self.containerd.remember(&self.namespace, &self.id);

        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: self.id.clone(),
            parent: client
                .unpacked(self.containerd, &self.image, &image)
                .await?,
            // Until the container's record refers to it, nothing else holds it.
            labels: HashMap::from([("containerd.io/gc.root".to_owned(), "test".to_owned())]),
        };
        let rootfs = SnapshotsClient::new(client.channel.clone())
            .prepare(client.request(prepare)?)
            .await
            .context("prepare the snapshot")?
            .into_inner()
            .mounts;

        let mut spec = self.spec.render(&image.config);
        for edit in self.edits {
            edit(&mut spec);
        }
        let process = spec["process"].clone();
        let container = api::Container {
            id: self.id.clone(),
            labels: self.labels,
            image: self.image,
            runtime: Some(api::container::Runtime {
                name: self.runtime,
                options: self.options.clone(),
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
                value: spec.to_string().into_bytes(),
            }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: self.id.clone(),
            ..api::Container::default()
        };
        let create = api::CreateContainerRequest {
            container: Some(container),
        };
        ContainersClient::new(client.channel.clone())
            .create(client.request(create)?)
            .await
            .context("create the container")?;

        let streams = stdio::Streams::make(
            &self.containerd.scratch().dir().join("io").join(&self.id),
            self.stdin,
            self.stdout,
            self.stderr,
        )?;
        Ok(Prepared {
            client,
            id: self.id,
            rootfs,
            terminal: self.spec.terminal,
            process,
            streams,
            containerd: self.containerd,
        })
    }

    /// Makes container and task.
    ///
    /// # Errors
    /// What containerd says; the container and its snapshot are removed then.
    pub async fn create(self) -> Result<Task<'a>> {
        self.prepare().await?.create().await
    }

    /// Makes container and task, starts it, waits for its end, deletes all.
    ///
    /// # Errors
    /// What containerd says, or that it ran for more than two minutes.
    pub async fn run(self) -> Result<Output> {
        let mut task = self.create().await?;
        let ran = async {
            task.start().await?;
            task.wait().await
        };
        match ran.await {
            Ok(status) => {
                task.delete().await?;
                Ok(task.output(status).await)
            }
            Err(error) => {
                drop(task.kill(9).await);
                drop(task.delete().await);
                Err(error)
            }
        }
    }
}

const SNAPSHOTTER: &str = "overlayfs";

/// A container's record and snapshot, ready for a task.
#[derive(Debug)]
pub struct Prepared<'a> {
    containerd: &'a Containerd,
    client: Client,
    id: String,
    rootfs: Vec<Mount>,
    terminal: bool,
    process: Value,
    streams: stdio::Streams,
}

impl<'a> Prepared<'a> {
    /// Makes the task: the one call `Task.Create`.
    ///
    /// # Errors
    /// What containerd says; the container and its snapshot are removed then.
    pub async fn create(self) -> Result<Task<'a>> {
        let create = api::CreateTaskRequest {
            container_id: self.id.clone(),
            rootfs: self.rootfs,
            stdin: self.streams.stdin_uri(),
            stdout: self.streams.stdout_uri(),
            stderr: self.streams.stderr_uri(),
            terminal: self.terminal,
            ..api::CreateTaskRequest::default()
        };
        let request = self.client.request(create)?;
        let mut tasks = TasksClient::new(self.client.channel.clone());
        let created = Instant::now();
        let answer = tasks.create(request).await;
        let mut task = Task {
            client: self.client,
            tasks,
            id: self.id,
            pid: 0,
            created,
            process: self.process,
            streams: self.streams,
            containerd: self.containerd,
        };
        match answer {
            Ok(answer) => {
                task.pid = answer.into_inner().pid;
                Ok(task)
            }
            Err(status) => {
                task.remove_records()
                    .await
                    .with_context(|| format!("clean up after: {}", status.message()))?;
                Err(status.into())
            }
        }
    }

    /// Removes record and snapshot again.
    ///
    /// # Errors
    /// What containerd says.
    pub async fn remove(self) -> Result<()> {
        remove_records(&self.client, &self.id).await
    }
}

/// A task that has been created.
#[derive(Debug)]
pub struct Task<'a> {
    containerd: &'a Containerd,
    client: Client,
    tasks: TasksClient<Channel>,
    id: String,
    pid: u32,
    created: Instant,
    /// The spec's `process`, of which an executed one is a copy.
    process: Value,
    streams: stdio::Streams,
}

/// What a task did.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit status.
    pub status: u32,
    /// All that it wrote to stdout.
    pub stdout: Vec<u8>,
    /// All that it wrote to stderr.
    pub stderr: Vec<u8>,
    /// From the call `Task.Create` to the first byte on stdout, if there was one.
    pub first_byte: Option<Duration>,
}

impl Output {
    /// stdout as text.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Task<'_> {
    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pid of its first process, as `Task.Create` told.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its bundle directory.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.containerd.bundle(&self.client.namespace, &self.id)
    }

    /// Releases it; returns the pid.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn start(&mut self) -> Result<u32, Status> {
        let start = api::StartRequest {
            container_id: self.id.clone(),
            ..api::StartRequest::default()
        };
        Ok(self
            .tasks
            .start(self.client.metadata(start))
            .await?
            .into_inner()
            .pid)
    }

    /// Waits for its end, at most two minutes; returns the exit status.
    ///
    /// # Errors
    /// What containerd says, or that the two minutes are over.
    pub async fn wait(&mut self) -> Result<u32> {
        let wait = api::WaitRequest {
            container_id: self.id.clone(),
            ..api::WaitRequest::default()
        };
        let request = self.client.metadata(wait);
        match tokio::time::timeout(DEADLINE, self.tasks.wait(request)).await {
            Ok(answer) => Ok(answer
                .context("wait for the task")?
                .into_inner()
                .exit_status),
            Err(_) => bail!(
                "task {} has not ended within {} s",
                self.id,
                DEADLINE.as_secs()
            ),
        }
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn kill(&mut self, signal: u32) -> Result<(), Status> {
        self.signal(signal, false).await
    }

    /// Sends a signal to all of its processes.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn kill_all(&mut self, signal: u32) -> Result<(), Status> {
        self.signal(signal, true).await
    }

    async fn signal(&mut self, signal: u32, all: bool) -> Result<(), Status> {
        let kill = api::KillRequest {
            container_id: self.id.clone(),
            signal,
            all,
            ..api::KillRequest::default()
        };
        self.tasks.kill(self.client.metadata(kill)).await.map(drop)
    }

    /// Its process as containerd sees it: status, pid, exit status.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn state(&mut self) -> Result<containerd_client::types::v1::Process, Status> {
        let get = api::GetRequest {
            container_id: self.id.clone(),
            ..api::GetRequest::default()
        };
        let answer = self
            .tasks
            .get(self.client.metadata(get))
            .await?
            .into_inner();
        answer
            .process
            .ok_or_else(|| Status::internal("the answer has no process"))
    }

    /// The pids of its processes.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn pids(&self) -> Result<Vec<u32>, Status> {
        let list = api::ListPidsRequest {
            container_id: self.id.clone(),
        };
        let answer = self.service().list_pids(self.request(list)).await?;
        let answer = answer.into_inner();
        Ok(answer
            .processes
            .into_iter()
            .map(|process| process.pid)
            .collect())
    }

    /// Its metrics, still packed.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn metrics(&mut self) -> Result<Option<Any>, Status> {
        let filters = vec![format!("id=={}", self.id)];
        let answer = self
            .tasks
            .metrics(self.client.metadata(api::MetricsRequest { filters }))
            .await?
            .into_inner();
        Ok(answer
            .metrics
            .into_iter()
            .find(|metric| metric.id == self.id)
            .and_then(|metric| metric.data))
    }

    /// The raw service, for calls that have no method here; requests go through [`Task::request`].
    #[must_use]
    pub fn service(&self) -> TasksClient<Channel> {
        self.tasks.clone()
    }

    /// A request in this task's containerd namespace.
    #[must_use]
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.client.metadata(message)
    }

    /// Writes to its stdin.
    ///
    /// # Errors
    /// When stdin is no FIFO, was closed, or nobody reads it any more.
    pub async fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        self.streams.write_stdin(bytes).await
    }

    /// Closes our end of stdin and tells the shim (`CloseIO`), as clients of containerd do.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn close_stdin(&mut self) -> Result<(), Status> {
        self.streams.close_stdin();
        let close = api::CloseIoRequest {
            container_id: self.id.clone(),
            stdin: true,
            ..api::CloseIoRequest::default()
        };
        self.tasks
            .close_io(self.client.metadata(close))
            .await
            .map(drop)
    }

    /// A process to be executed in it.
    #[must_use]
    pub fn exec<'s>(&self, args: impl IntoIterator<Item = &'s str>) -> ExecBuilder<'_> {
        ExecBuilder::new(self, args)
    }

    /// Tells the size of its terminal.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn resize(&mut self, width: u32, height: u32) -> Result<(), Status> {
        let resize = api::ResizePtyRequest {
            container_id: self.id.clone(),
            width,
            height,
            ..api::ResizePtyRequest::default()
        };
        let request = self.client.metadata(resize);
        self.tasks.resize_pty(request).await.map(drop)
    }

    /// Waits until stdout contains a text, at most two minutes.
    ///
    /// # Errors
    /// When stdout ends or the time is over before: the message shows what there is.
    pub async fn stdout_contains(&mut self, text: &str) -> Result<()> {
        self.streams.stdout_contains(text, DEADLINE).await
    }

    /// From the call `Task.Create` to the first byte on stdout, if one has come.
    #[must_use]
    pub fn first_byte(&self) -> Option<Duration> {
        self.streams
            .first_byte()
            .map(|at| at.duration_since(self.created))
    }

    /// Deletes the task, then the container's record and snapshot; returns the exit status.
    ///
    /// # Errors
    /// What containerd says; if it refuses to delete the task, nothing is removed.
    pub async fn delete(&mut self) -> Result<u32> {
        let status = self.delete_task().await.context("delete the task")?;
        self.remove_records().await?;
        Ok(status)
    }

    /// Deletes the task alone: the one call `Task.Delete`; returns the exit status.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn delete_task(&mut self) -> Result<u32, Status> {
        let delete = api::DeleteTaskRequest {
            container_id: self.id.clone(),
        };
        Ok(self
            .tasks
            .delete(self.client.metadata(delete))
            .await?
            .into_inner()
            .exit_status)
    }

    /// Removes the container's record and snapshot.
    ///
    /// # Errors
    /// What containerd says.
    pub async fn remove_records(&mut self) -> Result<()> {
        remove_records(&self.client, &self.id).await
    }

    /// All output, after the task was deleted (so that the shim has closed its ends).
    pub async fn output(&mut self, status: u32) -> Output {
        let first_byte = self.first_byte();
        let (stdout, stderr) = self.streams.finish().await;
        Output {
            status,
            stdout,
            stderr,
            first_byte,
        }
    }
}

async fn remove_records(client: &Client, id: &str) -> Result<()> {
    ContainersClient::new(client.channel.clone())
        .delete(client.request(api::DeleteContainerRequest { id: id.to_owned() })?)
        .await
        .context("delete the container's record")?;
    let remove = RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: id.to_owned(),
    };
    SnapshotsClient::new(client.channel.clone())
        .remove(client.request(remove)?)
        .await
        .context("remove the snapshot")?;
    Ok(())
}

/// A connection and the containerd namespace of all requests on it.
#[derive(Debug)]
struct Client {
    channel: Channel,
    namespace: String,
}

/// What a task needs to know about an image.
struct ImageInfo {
    config: Value,
    /// The chain id of the unpacked layers; empty when the image has none that unpack.
    chain: String,
}

impl Client {
    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let namespace =
            MetadataValue::try_from(&self.namespace).context("use the namespace in a request")?;
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        Ok(request)
    }

    /// As [`Client::request`], for a namespace that has been used before.
    fn metadata<T>(&self, message: T) -> Request<T> {
        self.request(message)
            .expect("the namespace has been in a request before")
    }

    async fn image(&self, reference: &str) -> Result<ImageInfo> {
        let get = api::GetImageRequest {
            name: reference.to_owned(),
        };
        let image = ImagesClient::new(self.channel.clone())
            .get(self.request(get)?)
            .await?
            .into_inner()
            .image;
        let target = image
            .and_then(|image| image.target)
            .context("the image has no target")?;
        let mut manifest = self.json(&target.digest).await?;
        if let Some(entries) = manifest["manifests"].as_array() {
            let fits = |entry: &&Value| {
                let platform = &entry["platform"];
                let architecture = platform["architecture"].as_str().unwrap_or_default();
                platform.is_null() || architecture == "wasm" || Some(architecture) == HOST
            };
            let entry = entries
                .iter()
                .find(fits)
                .context("the index has no entry for this machine or wasm")?;
            manifest = self
                .json(
                    entry["digest"]
                        .as_str()
                        .context("the entry has no digest")?,
                )
                .await?;
        }
        let config = self
            .json(
                manifest["config"]["digest"]
                    .as_str()
                    .context("the manifest has no config")?,
            )
            .await?;
        let mut chain = String::new();
        let tar_layers = manifest["layers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|layer| {
                layer["mediaType"]
                    .as_str()
                    .is_some_and(|media_type| media_type.contains(".tar"))
            });
        for (_, diff) in tar_layers.zip(
            config["rootfs"]["diff_ids"]
                .as_array()
                .into_iter()
                .flatten(),
        ) {
            let diff = diff.as_str().context("a diff_id is no text")?;
            chain = if chain.is_empty() {
                diff.to_owned()
            } else {
                format!(
                    "sha256:{}",
                    hex::encode(Sha256::digest(format!("{chain} {diff}")))
                )
            };
        }
        Ok(ImageInfo { config, chain })
    }

    /// The snapshot to build upon; unpacks the image first if nobody has.
    async fn unpacked(
        &self,
        containerd: &Containerd,
        reference: &str,
        image: &ImageInfo,
    ) -> Result<String> {
        if image.chain.is_empty() {
            return Ok(String::new());
        }
        let stat = containerd_client::services::v1::snapshots::StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: image.chain.clone(),
        };
        if SnapshotsClient::new(self.channel.clone())
            .stat(self.request(stat)?)
            .await
            .is_err()
        {
            // Mounting is what makes ctr unpack, for any platform; the mount itself is not wanted.
            let platform = format!(
                "{}/{}",
                image.config["os"].as_str().unwrap_or("linux"),
                image.config["architecture"].as_str().unwrap_or("amd64")
            );
            let point = containerd
                .scratch()
                .dir()
                .join(format!("unpack-{}", unique()));
            std::fs::create_dir(&point).context("create a mount point")?;
            let point = point.to_str().context("the scratch directory is UTF-8")?;
            let mount = ["images", "mount", "--platform", &platform, reference, point];
            containerd
                .ctr(&self.namespace, &mount)
                .await
                .context("unpack the image")?;
            containerd
                .ctr(&self.namespace, &["images", "unmount", "--rm", point])
                .await
                .context("unmount it again")?;
        }
        Ok(image.chain.clone())
    }

    async fn json(&self, digest: &str) -> Result<Value> {
        let read = api::ReadContentRequest {
            digest: digest.to_owned(),
            ..api::ReadContentRequest::default()
        };
        let mut stream = ContentClient::new(self.channel.clone())
            .read(self.request(read)?)
            .await?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend(part.data);
        }
        serde_json::from_slice(&bytes).with_context(|| format!("parse {digest}"))
    }
}

/// This machine, as images call it.
const HOST: Option<&str> = if cfg!(target_arch = "x86_64") {
    Some("amd64")
} else if cfg!(target_arch = "aarch64") {
    Some("arm64")
} else {
    None
};
