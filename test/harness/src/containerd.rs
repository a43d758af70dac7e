mod config;
mod daemon;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use containerd_client::services::v1::version_client::VersionClient;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::transport::Channel;

use self::daemon::{Daemon, Keeper};
use crate::image::{self, Content};
use crate::leftovers::Leftovers;
use crate::poll::until;
use crate::scratch::Scratch;
use crate::{Cri, Events, Registry, TaskBuilder, Tools, network};

/// The reference of the pause image that the harness imports for CRI.
pub(crate) const PAUSE: &str = "localhost/sampan-pause:test";

/// How long containerd may take to come up or to end.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long what containers leave may take to go. A supervisor for whose container containerd asks for nothing, since it
/// refused the spec itself, waits for it ten seconds.
const GONE: Duration = Duration::from_secs(15);

/// Which containerd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Version {
    /// The newest 2.x that is pinned.
    #[default]
    V2,
    /// The newest 1.7 that is pinned.
    V1_7,
}

/// A runtime handler of CRI: what a RuntimeClass names.
#[derive(Clone, Debug)]
pub struct Handler {
    name: String,
    runtime_type: String,
    options: Value,
    sandboxer: Option<String>,
}

impl Handler {
    /// A handler without options. Pod and container annotations below `sampan.dev/` are passed on.
    #[must_use]
    pub fn new(name: &str, runtime_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            runtime_type: runtime_type.to_owned(),
            options: json!({}),
            sandboxer: None,
        }
    }

    /// Says who makes its pods (2.x): `shim`, or `podsandbox`, which containerd takes by itself.
    #[must_use]
    pub fn sandboxer(mut self, name: &str) -> Self {
        self.sandboxer = Some(name.to_owned());
        self
    }

    /// Sets an option of the runtime, as in `SystemdCgroup` or `ConfigPath`.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options[name] = value.into();
        self
    }
}

/// What a containerd is started with.
#[derive(Debug, Default)]
pub struct Builder {
    version: Version,
    handlers: Vec<Handler>,
    shim_dirs: Vec<PathBuf>,
    registries: Vec<String>,
    mirror: Option<String>,
    environment: Vec<(OsString, OsString)>,
    discard_unpacked_layers: bool,
    use_local_image_pull: bool,
    without_cri: bool,
    without_sampan: bool,
    kept: bool,
    services: bool,
    sampan: Value,
}

impl Builder {
    /// 2.x unless told.
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Adds a handler to `runc` and `sampan`, which are always there (one of the same name replaces it).
    #[must_use]
    pub fn handler(mut self, handler: Handler) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Puts a directory with `containerd-shim-*` binaries at the front of containerd's PATH.
    #[must_use]
    pub fn shim_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.shim_dirs.push(dir.into());
        self
    }

    /// Lets containerd pull from it over plain HTTP.
    #[must_use]
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registries.push(registry.address().to_owned());
        self
    }

    /// Lets containerd pull whatever belongs to no other registry from it, by the names that the images have elsewhere:
    /// `registry.k8s.io/pause:3.9` is what was pushed as `pause:3.9`.
    #[must_use]
    pub fn mirror(mut self, registry: &Registry) -> Self {
        self.mirror = Some(registry.address().to_owned());
        self
    }

    /// Sets a variable in containerd's environment, which shims inherit.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As kind configures it: blobs of unpacked layers are not kept, and 2.x falls back to its older pull.
    #[must_use]
    pub fn discard_unpacked_layers(mut self) -> Self {
        self.discard_unpacked_layers = true;
        self
    }

    /// Pulls in CRI itself instead of by the transfer service (2.1 and later).
    #[must_use]
    pub fn use_local_image_pull(mut self) -> Self {
        self.use_local_image_pull = true;
        self
    }

    /// Leaves CRI out: no pod network and no pause image, so it starts faster.
    #[must_use]
    pub fn without_cri(mut self) -> Self {
        self.without_cri = true;
        self
    }

    /// Leaves our handler out: a node on which Sampan was never installed. Drop-ins of `conf.d` beside the configuration
    /// are read, as the packages of containerd 2.x set it up.
    #[must_use]
    pub fn without_sampan(mut self) -> Self {
        self.without_sampan = true;
        self
    }

    /// Starts the daemon again whenever it ends, as systemd does on a node.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Gives pods a route to the first address of [`Containerd::services`], which is the host's.
    #[must_use]
    pub fn services(mut self) -> Self {
        self.services = true;
        self
    }

    /// Adds to our shim's configuration, which names a private run directory and a private store: a table, as in
    /// `json!({ "compile": { "max-seconds": 5 } })`. What stands there already is replaced.
    #[must_use]
    pub fn sampan(mut self, table: Value) -> Self {
        merge(&mut self.sampan, table);
        self
    }

    /// Starts it; all services answer when this returns, and the pause image is there.
    ///
    /// # Errors
    /// When tools are missing, or it does not come up: the message ends with its log.
    pub async fn start(self) -> Result<Containerd> {
        let tools = Tools::locate()?;
        let scratch = Scratch::new()?;
        let programs = match self.version {
            Version::V2 => tools.containerd_2.clone(),
            Version::V1_7 => tools.containerd_1_7.clone(),
        };
        let dir = scratch.dir();
        let conf = config::render(&self, &tools, &scratch);
        fs::write(
            dir.join("config.toml"),
            toml::to_string(&conf).context("render containerd's configuration")?,
        )
        .context("write containerd's configuration")?;
        for registry in &self.registries {
            let hosts = dir.join("certs.d").join(registry);
            fs::create_dir_all(&hosts).with_context(|| format!("create {}", hosts.display()))?;
            let text = format!(
                "server = \"http://{registry}\"\n[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
            );
            fs::write(hosts.join("hosts.toml"), text).context("write the registry's hosts.toml")?;
        }
        if let Some(mirror) = &self.mirror {
            let hosts = dir.join("certs.d/_default");
            fs::create_dir_all(&hosts).with_context(|| format!("create {}", hosts.display()))?;
            let text =
                format!("[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
            fs::write(hosts.join("hosts.toml"), text).context("write the mirror's hosts.toml")?;
        }
        let mut sampan =
            json!({ "run": dir.join("sampan"), "store": { "path": dir.join("store") } });
        merge(&mut sampan, self.sampan);
        fs::write(
            dir.join("sampan.toml"),
            toml::to_string(&sampan).context("render the shim's configuration")?,
        )
        .context("write the shim's configuration")?;
        let services = if self.without_cri {
            None
        } else {
            let conf_dir = dir.join("cni");
            let services = network::create(scratch.tag(), dir, &conf_dir, self.services)?;
            self.services.then_some(services)
        };

        // containerd looks up shims on its own PATH, and runc's shim finds runc there when no BinaryName is given.
        // Ours is the one that was built with the running test, unless a test names another.
        let mut path: Vec<PathBuf> = self.shim_dirs.clone();
        path.push(crate::built_dir()?);
        path.push(programs.dir.clone());
        path.extend(tools.runc.parent().map(Path::to_path_buf));
        path.extend(
            [
                "/usr/local/sbin",
                "/usr/local/bin",
                "/usr/sbin",
                "/usr/bin",
                "/sbin",
                "/bin",
            ]
            .map(PathBuf::from),
        );
        let mut environment = vec![
            (
                "PATH".into(),
                std::env::join_paths(path).context("join containerd's PATH")?,
            ),
            ("SAMPAN_CONFIG".into(), dir.join("sampan.toml").into()),
        ];
        environment.extend(self.environment);

        let mut containerd = Containerd {
            version: self.version,
            programs,
            tools,
            environment,
            without_cri: self.without_cri,
            kept: self.kept,
            services,
            process: None,
            scratch,
        };
        containerd.up().await?;
        if !self.without_cri {
            containerd
                .import_in("k8s.io", PAUSE, &image::pause()?)
                .await?;
            containerd.cri().await?.image_present(PAUSE).await?;
        }
        Ok(containerd)
    }
}

/// A private containerd with its own root, state, sockets, configuration and network.
#[derive(Debug)]
pub struct Containerd {
    version: Version,
    programs: tools::Containerd,
    tools: Tools,
    environment: Vec<(OsString, OsString)>,
    without_cri: bool,
    kept: bool,
    services: Option<Ipv4Addr>,
    process: Option<Daemon>,
    /// The last field: dropping it removes what is left when containerd has ended.
    scratch: Scratch,
}

impl Containerd {
    /// A containerd to be configured.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Which one this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its gRPC socket (CRI's too).
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.socket()
    }

    /// Its root directory: content store, snapshots, metadata.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.scratch.dir().join("root")
    }

    /// Its state directory: bundles and pods.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.scratch.dir().join("state")
    }

    /// The directory in which our shim keeps what it needs to clean up.
    #[must_use]
    pub fn sampan_run(&self) -> PathBuf {
        self.scratch.dir().join("sampan")
    }

    /// Our shim's store of compiled programs.
    #[must_use]
    pub fn sampan_store(&self) -> PathBuf {
        self.scratch.dir().join("store")
    }

    /// The subnet of 256 addresses for Services, if one was asked for. They lead nowhere, but for the first.
    #[must_use]
    pub fn services(&self) -> Option<Ipv4Addr> {
        self.services
    }

    /// The private directory of this test, for volumes and other files.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The tools that it runs with.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The bundle directory of a task.
    #[must_use]
    pub fn bundle(&self, namespace: &str, id: &str) -> PathBuf {
        self.state()
            .join("io.containerd.runtime.v2.task")
            .join(namespace)
            .join(id)
    }

    /// Process id of the daemon, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Daemon::pid)
    }

    /// From now on a daemon that is kept does not come back while a file contains a text, as one that does not start with
    /// a configuration.
    pub fn refuse(&self, file: &Path, text: &str) {
        if let Some(process) = &self.process {
            process.refuse(Some((file.to_owned(), text.to_owned())));
        }
    }

    /// It comes back again whatever it is configured for.
    pub fn accept(&self) {
        if let Some(process) = &self.process {
            process.refuse(None);
        }
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.scratch.dir().join("config.toml")
    }

    /// All that it and its shims have logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// A connection to its gRPC services.
    ///
    /// # Errors
    /// When it does not accept.
    pub async fn channel(&self) -> Result<Channel> {
        let socket = self.socket();
        containerd_client::connect(&socket)
            .await
            .with_context(|| format!("connect to {}", socket.display()))
    }

    /// CRI's client.
    ///
    /// # Errors
    /// When it does not accept.
    pub async fn cri(&self) -> Result<Cri<'_>> {
        Cri::connect(self).await
    }

    /// A task of an image that is in the namespace `default`.
    #[must_use]
    pub fn task(&self, image: &str) -> TaskBuilder<'_> {
        TaskBuilder::new(self, image)
    }

    /// Containerd's events from now on.
    ///
    /// # Errors
    /// When the subscription fails.
    pub async fn events(&self) -> Result<Events> {
        Events::subscribe(self).await
    }

    /// Packs content and imports it, by `ctr images import`, into the namespace `default`.
    ///
    /// # Errors
    /// What ctr says.
    pub async fn import(&self, reference: &str, content: &impl Content) -> Result<()> {
        self.import_in("default", reference, content).await
    }

    /// Imports a program in WebAssembly's text as a root file system, and returns the image's reference.
    ///
    /// # Errors
    /// What ctr says.
    pub async fn import_text(&self, name: &str, wat: &str) -> Result<String> {
        let reference = format!("example.test/{name}:v1");
        let image = image::Rootfs::new()
            .file("/app.wat", wat)
            .entrypoint(["/app.wat"])
            .build()?;
        self.import(&reference, &image).await?;
        Ok(reference)
    }

    /// As [`Containerd::import`], into another namespace (`k8s.io` is CRI's).
    ///
    /// # Errors
    /// What ctr says.
    pub async fn import_in(
        &self,
        namespace: &str,
        reference: &str,
        content: &impl Content,
    ) -> Result<()> {
        let archive = self.scratch.dir().join(format!("{}.tar", crate::unique()));
        fs::write(&archive, image::archive(reference, content)?).context("write the archive")?;
        let file = archive.to_str().context("the scratch directory is UTF-8")?;
        // An image for another platform is skipped unless all are asked for. Nothing is unpacked, since what does not fit
        // this machine would fail; a task unpacks what it needs.
        let mut import = vec!["images", "import", "--all-platforms", "--no-unpack"];
        if self.version == Version::V2 {
            import.push("--local");
        }
        import.push(file);
        let imported = self.ctr(namespace, &import).await;
        fs::remove_file(&archive).context("remove the archive")?;
        imported.map(drop)
    }

    /// Runs `ctr` in a namespace and returns its stdout.
    ///
    /// # Errors
    /// What it says on stderr, when it fails.
    pub async fn ctr(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.programs.ctr);
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", namespace])
            .args(arguments);
        output(command).await
    }

    /// Runs `crictl` and returns its stdout.
    ///
    /// # Errors
    /// What it says on stderr, when it fails.
    pub async fn crictl(&self, arguments: &[&str]) -> Result<String> {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = tokio::process::Command::new(&self.tools.crictl);
        command.args([
            "--config",
            "/dev/null",
            "--runtime-endpoint",
            &endpoint,
            "--image-endpoint",
            &endpoint,
        ]);
        command.args(arguments);
        output(command).await
    }

    /// Ends the daemon by SIGTERM, leaving shims and containers as they are, and waits for it.
    ///
    /// # Errors
    /// When it does not end within thirty seconds (it is killed then).
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.end(Signal::SIGTERM)?;
        let ended = until("the end of containerd", DEADLINE, async || {
            Ok(process.ended()?)
        })
        .await;
        if ended.is_err() {
            drop(process.kill());
        }
        ended.map(drop)
    }

    /// Kills the daemon by SIGKILL, leaving shims and containers as they are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Daemon::kill)
    }

    /// Stops the daemon if it runs and starts it again on the same directories.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.up().await
    }

    /// Looks for what containers and shims have left.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        Leftovers::find(&self.scratch, self.pid())
    }

    /// Waits until nothing is left, at most [`GONE`]: containerd ends shims after it has answered.
    ///
    /// # Errors
    /// What is left then.
    pub async fn assert_clean(&self) -> Result<()> {
        let clean = async || Ok(self.leftovers().is_empty().then_some(()));
        match until("the end of all leftovers", GONE, clean).await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error}:\n{}", self.leftovers()),
        }
    }

    /// Remembers an id, so that leftovers named after it are found: of a container that somebody else has made, as the
    /// kubelet does.
    pub fn remember(&self, namespace: &str, id: &str) {
        self.scratch.remember(namespace, id);
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.dir().join("containerd.log")
    }

    async fn up(&mut self) -> Result<()> {
        let mut command = Command::new(&self.programs.containerd);
        command
            .arg("--config")
            .arg(self.config())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let log_path = self.log_path();
        let first = spawn(&mut command, &log_path)?;
        let process = self.process.insert(if self.kept {
            let command = Mutex::new(command);
            Daemon::Kept(Keeper::new(first, move || {
                let mut command = command.lock().unwrap_or_else(PoisonError::into_inner);
                spawn(&mut command, &log_path)
            }))
        } else {
            Daemon::Once(first)
        });
        let socket = self.scratch.socket();
        let ready = until("containerd", DEADLINE, async || {
            if let Some(status) = process.ended()? {
                bail!("containerd ended with {status}");
            }
            let Ok(channel) = containerd_client::connect(&socket).await else {
                return Ok(None);
            };
            Ok(VersionClient::new(channel).version(()).await.ok().map(drop))
        })
        .await;
        if ready.is_ok() && !self.without_cri {
            // CRI comes up after the other services.
            let cri = self.cri().await.map(drop);
            return cri.with_context(|| {
                format!("start containerd's CRI; its log:\n{}", tail(&self.log()))
            });
        }
        ready.with_context(|| format!("start containerd; its log:\n{}", tail(&self.log())))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(&format!("containerd's log:\n{}", tail(&self.log())));
        }
        // Its state is thrown away, so nothing is lost by not asking nicely.
        drop(self.process.take().map(Daemon::kill));
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share containerd's log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))
}

#[allow(
    clippy::print_stderr,
    reason = "the reason why a test fails is often in this log"
)]
fn tell(what: &str) {
    eprintln!("{what}");
}

/// The last lines of a log, for a message.
#[must_use]
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Puts a table over another, key by key.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}

async fn output(mut command: tokio::process::Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {:?}", command.as_std()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{:?} ended with {}: {}",
            command.as_std(),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout).context("read the output as UTF-8")
}
