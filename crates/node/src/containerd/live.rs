use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use k8s_cri::v1::StatusRequest;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use plan::NodeConfig;
use serde_json::{Map, Value};
use tonic::Code;
use tonic::transport::Channel;

use super::process::{self, Process};
use super::{Containerd, Found, User, users};
use crate::canary::Canary;
use crate::config::{self, Effective};
use crate::files;
use crate::host::{Host, command_in};
use crate::layout::Layout;
use crate::precompile;
use crate::settings::{Restart, Settings};

/// How often a state that nobody announces is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long containerd, or a program of the host that is asked something, may take to end.
const ENDING: Duration = Duration::from_secs(60);
/// How long one connection or one answer may take: a socket whose process is ending accepts and never answers.
const ANSWER: Duration = Duration::from_secs(10);
/// The file by which another configuration of the shim is named, and where it is without that.
const CONFIG_VARIABLE: &str = "SAMPAN_CONFIG";
const CONFIG: &str = "/etc/sampan/config.toml";

/// The containerd of this node.
#[derive(Debug)]
pub struct Live {
    host: Host,
    layout: &'static Layout,
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
    restart: Option<Restart>,
    /// The directory of the host where files lie that its parser is to read.
    try_dir: PathBuf,
    patience: Duration,
    canary: Canary,
}

impl Live {
    /// The one that these settings mean.
    #[must_use]
    pub fn new(settings: &Settings, host: Host) -> Self {
        let layout = Layout::of(&host);
        let state = settings.prefix.join("state");
        Self {
            layout,
            socket: settings.containerd_socket.clone(),
            config: settings.containerd_config.clone(),
            restart: settings.restart.clone(),
            try_dir: state.join("try"),
            patience: Duration::from_secs(settings.restart_timeout),
            canary: Canary::new(&host, &state, settings.canary_image.clone()),
            host,
        }
    }

    fn socket(&self) -> Result<PathBuf> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        self.layout.socket(&self.host).with_context(|| {
            format!(
                "find containerd's socket: {} are not there; name it by --containerd-socket",
                self.layout.sockets.join(" and ")
            )
        })
    }

    pub(crate) async fn connect(&self) -> Result<Channel> {
        let socket = self.socket()?;
        let path = self.host.path(&socket)?;
        let connected = tokio::time::timeout(ANSWER, containerd_client::connect(&path)).await;
        connected
            .map_err(anyhow::Error::from)
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("connect to containerd at {}", socket.display()))
    }

    /// The process that listens on the socket.
    async fn process(&self) -> Result<Process> {
        let socket = self.socket()?;
        let connected = tokio::net::UnixStream::connect(self.host.path(&socket)?).await;
        let pid = connected
            .and_then(|stream| stream.peer_cred())
            .with_context(|| format!("connect to containerd at {}", socket.display()))?
            .pid();
        let pid = pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid != 0)
            .with_context(|| {
                format!(
                    "see which process listens at {}: this program needs the host's process ids (hostPID)",
                    socket.display()
                )
            })?;
        Process::of(pid)
    }

    fn config(&self, process: &Process) -> PathBuf {
        self.config
            .clone()
            .or_else(|| process.config())
            .unwrap_or_else(|| self.layout.config.into())
    }

    /// The shim's configuration, which it reads itself.
    pub(crate) async fn shim_config(&self) -> Result<NodeConfig> {
        let process = self.process().await?;
        let named = process.variable(CONFIG_VARIABLE).map(PathBuf::from);
        let path = named.as_deref().unwrap_or(Path::new(CONFIG));
        let text = files::read(&self.host.path(path)?)?.unwrap_or_default();
        let text = String::from_utf8(text).with_context(|| format!("read {}", path.display()))?;
        NodeConfig::of_file(&text, path).with_context(|| path.display().to_string())
    }

    /// The files of a directory of drop-ins but for our own, if that is there.
    fn without_ours(&self, dir: &Path) -> Option<Vec<PathBuf>> {
        let here = self.host.path(dir).ok()?;
        let ours = files::read(&here.join(config::DROP_IN)).ok()??;
        if !config::is_ours(&ours) {
            return None;
        }
        let mut names: Vec<PathBuf> = std::fs::read_dir(&here)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.file_name().into()))
            .filter(|name: &PathBuf| {
                name.extension().is_some_and(|ending| ending == "toml")
                    && name != Path::new(config::DROP_IN)
            })
            .collect();
        names.sort();
        Some(names.into_iter().map(|name| dir.join(name)).collect())
    }

    /// Runs the host's own containerd with this configuration, to its end.
    async fn dumped(&self, config: &Path) -> Result<Effective> {
        let process = self.process().await?;
        let program = PathBuf::from(format!("/proc/{}/exe", process.pid));
        let name = process
            .arguments
            .first()
            .map_or("containerd", String::as_str);
        let mut command = command_in(process.pid, &program, name);
        command.arg("--config").arg(config).args(["config", "dump"]);
        let output = ended("the host's containerd", command).await?;
        ensure!(
            output.status.success(),
            "containerd does not read the configuration ({}): {}",
            output.status,
            said(&output)
        );
        let dump = String::from_utf8(output.stdout).context("read containerd's configuration")?;
        Effective::parse(&dump).context("read containerd's configuration")
    }
}

/// Runs a program of the host to its end.
async fn ended(name: &str, command: std::process::Command) -> Result<Output> {
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(ENDING, output)
        .await
        .with_context(|| format!("wait for {name}"))?
        .with_context(|| format!("execute {name}"))
}

/// What it complains of, in one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.trim().replace('\n', "; ")
}

impl Containerd for Live {
    async fn found(&self) -> Result<Found> {
        let process = self.process().await?;
        let channel = self.connect().await?;
        let mut client = VersionClient::new(channel.clone());
        let version = tokio::time::timeout(ANSWER, client.version(()))
            .await
            .context("wait for containerd's version")?
            .context("ask containerd for its version")?
            .into_inner()
            .version;
        let plugins = IntrospectionClient::new(channel)
            .plugins(PluginsRequest::default())
            .await
            .context("ask containerd for its plugins")?
            .into_inner()
            .plugins
            .into_iter()
            .filter(|plugin| plugin.init_err.is_none())
            .map(|plugin| format!("{}.{}", plugin.r#type, plugin.id))
            .collect();
        let restart = match (&self.restart, self.layout.units) {
            (Some(restart), _) => restart.clone(),
            // What the distribution merges, it merges when its own unit starts.
            (None, [unit, ..]) if self.layout.drop_in_dir.is_some() => {
                match process.supervisor(&self.host) {
                    Restart::Systemd(unit) => Restart::Systemd(unit),
                    _ => Restart::Systemd((*unit).to_owned()),
                }
            }
            (None, _) => process.supervisor(&self.host),
        };
        Ok(Found {
            layout: self.layout.name.to_owned(),
            socket: self.socket()?,
            config: self.config(&process),
            pid: process.pid,
            version,
            plugins,
            restart,
            notes: self.layout.notes.to_owned(),
        })
    }

    async fn runtimes(&self) -> Result<Map<String, Value>> {
        let channel = self.connect().await?;
        let mut runtime = RuntimeServiceClient::new(channel);
        let status = runtime.status(StatusRequest { verbose: true });
        let answer = tokio::time::timeout(ANSWER, status)
            .await
            .context("wait for CRI's status")?;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => bail!(
                "containerd has no CRI: take `cri` out of disabled_plugins in its configuration"
            ),
            Err(status) => return Err(status).context("ask CRI for its status"),
        };
        let conditions = answer.status.map(|status| status.conditions);
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.r#type == "RuntimeReady" && condition.status);
        ensure!(ready, "CRI says that its runtime is not ready");
        let config = answer.info.get("config").map_or("", String::as_str);
        let mut config: Value = serde_json::from_str(config).context("read CRI's configuration")?;
        match config.pointer_mut("/containerd/runtimes").map(Value::take) {
            Some(Value::Object(runtimes)) => Ok(runtimes),
            _ => bail!("find the runtimes in CRI's configuration"),
        }
    }

    async fn dump(
        &self,
        config: Option<&[u8]>,
        path: &Path,
        drop_in: Option<&[u8]>,
    ) -> Result<Effective> {
        let Some(config) = config else {
            // containerd takes its defaults for a file that is not there.
            return self.dumped(path).await;
        };
        let here = self.host.path(&self.try_dir)?;
        files::make(&here)?;
        let result = async {
            let other = self.try_dir.join(config::DROP_IN);
            if let Some(drop_in) = drop_in {
                files::write(&here.join(config::DROP_IN), drop_in, || ())?;
            }
            let copy = config::relocated(config, path, drop_in.map(|_| other.as_path()), &|dir| {
                self.without_ours(dir)
            })?;
            files::write(&here.join("config.toml"), &copy, || ())?;
            self.dumped(&self.try_dir.join("config.toml")).await
        }
        .await;
        files::remove_all(&here)?;
        result
    }

    async fn restart(&self, restart: &Restart, sent: &dyn Fn()) -> Result<()> {
        let old = self.process().await.ok();
        match restart {
            Restart::None => bail!(
                "containerd has to start again and --restart is `none`, or nobody is known who would start it: set --restart"
            ),
            Restart::Signal => {
                if let Some(old) = &old {
                    old.terminate()?;
                }
                sent();
            }
            Restart::Systemd(unit) => {
                let mut command = command_in(1, Path::new("systemctl"), "systemctl");
                command.args(["restart", "--no-block", unit]);
                let output = ended("systemctl", command).await?;
                ensure!(
                    output.status.success(),
                    "systemctl restart {unit} ended with {}: {}",
                    output.status,
                    said(&output)
                );
                sent();
            }
        }
        let began = Instant::now();
        while old.as_ref().is_some_and(Process::runs) {
            ensure!(
                began.elapsed() < ENDING,
                "containerd has not ended within {} s",
                ENDING.as_secs()
            );
            tokio::time::sleep(INTERVAL).await;
        }
        Ok(())
    }

    async fn canary(&self, handler: &str, running: &dyn Fn()) -> Result<()> {
        let process = self.process().await?;
        let config = self.config(&process);
        // What is read here only says who makes cgroups: containerd itself reads it as it is.
        let systemd = self.dumped(&config).await?.systemd_cgroup();
        self.canary
            .run(&self.connect().await?, handler, systemd, running)
            .await
    }

    async fn sweep(&self) -> Result<()> {
        let channel = self.connect().await?;
        precompile::sweep(&channel).await?;
        self.canary.sweep(&channel).await
    }

    async fn users(&self) -> Result<Vec<User>> {
        users::list(&self.connect().await?).await
    }

    async fn end(&self, users: &[User]) -> Result<()> {
        users::end(&self.connect().await?, users).await
    }

    async fn data(&self) -> Result<Vec<PathBuf>> {
        let config = self.shim_config().await?;
        Ok(vec![config.run, config.store.path])
    }

    fn in_use(&self, dir: &Path) -> bool {
        process::below(dir)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}
