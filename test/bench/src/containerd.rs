//! A containerd of our own: private root, state and sockets in a temporary directory, without the CRI plugin (the bench
//! speaks containerd's API) and without every plugin that would work beside the measurement.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::tonic::transport::Channel;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// Stopped when dropped. The tasks must be gone by then.
pub(crate) struct Containerd {
    process: Child,
    directory: PathBuf,
    socket: PathBuf,
    /// The client end of its socket.
    pub(crate) channel: Channel,
    /// As it reports it.
    pub(crate) version: String,
}

/// How much containerd and the shims write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    /// Our shim tells then how long each step took.
    Debug,
}

impl Containerd {
    /// Starts the `containerd` of `program` in `directory`, where an earlier one may have left its stores; it finds shims
    /// and runc on `path`. The store and the run directory of our shims are below `directory` too.
    pub(crate) async fn start(
        program: &Path,
        path: &[PathBuf],
        directory: &Path,
        level: Level,
    ) -> Result<Self> {
        let directory = directory.to_owned();
        let socket = directory.join("c.sock");
        let config = directory.join("config.toml");
        // containerd refuses nothing here, but guests of other users must not look in.
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o711))?;
        std::fs::write(&config, configuration(&directory, &socket, level))?;
        let node = directory.join("sampan.toml");
        std::fs::write(&node, node_configuration(&directory))?;
        let log = std::fs::File::create(directory.join("containerd.log"))?;
        let mut search: Vec<PathBuf> = path.to_vec();
        if let Some(inherited) = std::env::var_os("PATH") {
            search.extend(std::env::split_paths(&inherited));
        }
        let search: OsString = std::env::join_paths(search)?;
        let mut process = Command::new(program)
            .arg("--config")
            .arg(&config)
            .env("PATH", search)
            .env("SAMPAN_CONFIG", node)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {program:?}"))?;
        let answers = harness::until("containerd", READY_WITHIN, async || {
            if let Some(status) = process.try_wait()? {
                bail!("containerd ended ({status})");
            }
            Ok(answer(&socket).await)
        })
        .await;
        let (channel, version) = match answers {
            Ok(answers) => answers,
            Err(error) => {
                // It is ours and answers nobody; the error says what it wrote.
                let _ = process.kill();
                return Err(error.context(last_lines(&directory)));
            }
        };
        Ok(Self {
            process,
            directory,
            socket,
            channel,
            version,
        })
    }

    /// What containerd and the shims have written.
    pub(crate) fn log(&self) -> Result<String> {
        let path = self.directory.join("containerd.log");
        let bytes = std::fs::read(&path).with_context(|| format!("read {path:?}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What containerd and the shims wrote, for a failure's report.
    pub(crate) fn last_lines(&self) -> String {
        last_lines(&self.directory)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let terminated = i32::try_from(self.process.id()).is_ok_and(|pid| {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGTERM,
            )
            .is_ok()
        });
        if !terminated {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

async fn answer(socket: &Path) -> Option<(Channel, String)> {
    let channel = containerd_client::connect(socket).await.ok()?;
    let response = VersionClient::new(channel.clone()).version(()).await.ok()?;
    Some((channel, response.into_inner().version))
}

fn node_configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!("run = '{directory}/sampan'\n[store]\npath = '{directory}/store'\n")
}

fn configuration(directory: &Path, socket: &Path, level: Level) -> String {
    let directory = directory.display();
    let level = match level {
        Level::Info => "info",
        Level::Debug => "debug",
    };
    format!(
        "version = 3
root = '{directory}/root'
state = '{directory}/state'
disabled_plugins = [
  'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri',
  'io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.devmapper', 'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs', 'io.containerd.tracing.processor.v1.otlp',
]

[debug]
  level = '{level}'

[grpc]
  address = '{}'

[plugins.'io.containerd.internal.v1.opt']
  path = '{directory}/opt'
",
        socket.display()
    )
}

fn last_lines(directory: &Path) -> String {
    let log = std::fs::read_to_string(directory.join("containerd.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
