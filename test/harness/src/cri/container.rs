use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStats, ContainerStatsRequest,
    ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest,
    ExecSyncResponse, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption, RemoveContainerRequest,
    StartContainerRequest, StopContainerRequest,
};
use tonic::Status;

use super::{Cri, Pod};
use crate::poll::until;

/// How long a container may run before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(120);

/// A container to be created.
#[derive(Debug)]
pub struct ContainerBuilder<'a> {
    pod: Pod<'a>,
    config: ContainerConfig,
}

impl<'a> ContainerBuilder<'a> {
    pub(super) fn new(pod: Pod<'a>, name: &str, image: &str) -> Self {
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(NamespaceOption {
                pid: NamespaceMode::Container.into(),
                ..NamespaceOption::default()
            }),
            ..LinuxContainerSecurityContext::default()
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image.to_owned(),
                user_specified_image: image.to_owned(),
                ..ImageSpec::default()
            }),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(security),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        };
        Self { pod, config }
    }

    /// What replaces the image's entry point.
    #[must_use]
    pub fn command<'s>(mut self, command: impl IntoIterator<Item = &'s str>) -> Self {
        self.config.command = command.into_iter().map(str::to_owned).collect();
        self
    }

    /// What replaces the image's command.
    #[must_use]
    pub fn args<'s>(mut self, args: impl IntoIterator<Item = &'s str>) -> Self {
        self.config.args = args.into_iter().map(str::to_owned).collect();
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.config.envs.push(KeyValue {
            key: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// The working directory.
    #[must_use]
    pub fn cwd(mut self, cwd: &str) -> Self {
        self.config.working_dir = cwd.to_owned();
        self
    }

    /// Mounts a path of the host.
    #[must_use]
    pub fn mount(mut self, host: impl Into<PathBuf>, container: &str, readonly: bool) -> Self {
        self.config.mounts.push(Mount {
            container_path: container.to_owned(),
            host_path: host.into().to_string_lossy().into_owned(),
            readonly,
            ..Mount::default()
        });
        self
    }

    /// Adds an annotation to the container.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.config
            .annotations
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// User and group.
    #[must_use]
    pub fn user(self, uid: i64, gid: i64) -> Self {
        self.security(|security| {
            security.run_as_user = Some(Int64Value { value: uid });
            security.run_as_group = Some(Int64Value { value: gid });
        })
    }

    /// Changes the security context: read-only rootfs, privileges, capabilities, seccomp.
    #[must_use]
    pub fn security(self, edit: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.config(|config| {
            let linux = config.linux.get_or_insert_default();
            edit(linux.security_context.get_or_insert_default());
        })
    }

    /// Changes the finished configuration.
    #[must_use]
    pub fn config(mut self, edit: impl FnOnce(&mut ContainerConfig)) -> Self {
        edit(&mut self.config);
        self
    }

    /// Creates the container. As the kubelet does, the image is handed over by its id, and the name that the user wrote
    /// goes beside it.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn create(mut self) -> Result<Container<'a>, Status> {
        let cri = self.pod.cri.clone();
        if let Some(image) = &mut self.config.image
            && let Some(id) = cri.image_id(&image.image).await?
        {
            image.image = id;
        }
        let log = PathBuf::from(&self.pod.config.log_directory).join(&self.config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod.id.clone(),
            config: Some(self.config),
            sandbox_config: Some(self.pod.config),
        };
        let id = cri
            .runtime()
            .create_container(request)
            .await?
            .into_inner()
            .container_id;
        cri.containerd.remember("k8s.io", &id);
        Ok(Container { cri, id, log })
    }
}

/// A container that CRI knows.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    cri: Cri<'a>,
    id: String,
    log: PathBuf,
}

/// How a container ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exit {
    /// Its exit code.
    pub exit_code: i32,
    /// CRI's word for it: `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// The termination message, or what went wrong.
    pub message: String,
}

/// What a container has written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Logs {
    /// To stdout.
    pub stdout: String,
    /// To stderr.
    pub stderr: String,
}

impl Container<'_> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts it.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: self.id.clone(),
        };
        self.cri.runtime().start_container(request).await.map(drop)
    }

    /// Its status.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn status(&self) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: false,
        };
        let status = self
            .cri
            .runtime()
            .container_status(request)
            .await?
            .into_inner()
            .status;
        status.ok_or_else(|| Status::internal("the answer has no status"))
    }

    /// Its process id on the host, while it runs.
    ///
    /// # Errors
    /// What CRI says, or that the answer has no pid.
    pub async fn pid(&self) -> Result<u32> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: true,
        };
        let mut info = self
            .cri
            .runtime()
            .container_status(request)
            .await?
            .into_inner()
            .info;
        let info: serde_json::Value =
            serde_json::from_str(&info.remove("info").unwrap_or_default())?;
        let pid = info["pid"]
            .as_u64()
            .context("the container's info has no pid")?;
        Ok(pid.try_into()?)
    }

    /// Waits for its end, at most two minutes.
    ///
    /// # Errors
    /// What CRI says, or that the two minutes are over.
    pub async fn wait(&self) -> Result<Exit> {
        until("the container's end", DEADLINE, async || {
            let status = self.status().await?;
            let ended = status.state() == ContainerState::ContainerExited;
            Ok(ended.then_some(Exit {
                exit_code: status.exit_code,
                reason: status.reason,
                message: status.message,
            }))
        })
        .await
    }

    /// Asks it to end, and kills it after `grace` seconds.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn stop(&self, grace: i64) -> Result<(), Status> {
        let request = StopContainerRequest {
            container_id: self.id.clone(),
            timeout: grace,
        };
        self.cri.runtime().stop_container(request).await.map(drop)
    }

    /// Removes it.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn remove(&self) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: self.id.clone(),
        };
        self.cri.runtime().remove_container(request).await.map(drop)
    }

    /// Runs a command in it, for at most ten seconds.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn exec<'s>(
        &self,
        command: impl IntoIterator<Item = &'s str>,
    ) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.into_iter().map(str::to_owned).collect(),
            timeout: 10,
        };
        Ok(self.cri.runtime().exec_sync(request).await?.into_inner())
    }

    /// Its stats as CRI tells them.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn stats(&self) -> Result<Option<ContainerStats>, Status> {
        let request = ContainerStatsRequest {
            container_id: self.id.clone(),
        };
        Ok(self
            .cri
            .runtime()
            .container_stats(request)
            .await?
            .into_inner()
            .stats)
    }

    /// What it has written, from the log file that the kubelet would read.
    ///
    /// # Errors
    /// When there is no log.
    pub fn logs(&self) -> Result<Logs> {
        let text = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(parse(&String::from_utf8_lossy(&text)))
    }

    /// Waits until its stdout contains a text, at most two minutes.
    ///
    /// # Errors
    /// When it does not: the message shows what there is.
    pub async fn stdout_contains(&self, text: &str) -> Result<()> {
        let found = async || {
            Ok(self
                .logs()
                .is_ok_and(|logs| logs.stdout.contains(text))
                .then_some(()))
        };
        until(&format!("{text:?} on stdout"), DEADLINE, found)
            .await
            .with_context(|| format!("it wrote {:?}", self.logs()))
    }
}

/// CRI's log format: time, stream, `F` (a full line) or `P` (a part of one), content.
fn parse(text: &str) -> Logs {
    let mut logs = Logs::default();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        let (Some(_), Some(stream), Some(tag)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let to = if stream == "stderr" {
            &mut logs.stderr
        } else {
            &mut logs.stdout
        };
        to.push_str(fields.next().unwrap_or_default());
        if tag == "F" {
            to.push('\n');
        }
    }
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_joined_from_its_parts() {
        let text = "2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:00Z stderr F bad\n2026-01-01T00:00:00Z stdout F two\n";
        assert_eq!(
            parse(text),
            Logs {
                stdout: "one two\n".into(),
                stderr: "bad\n".into()
            }
        );
    }
}
