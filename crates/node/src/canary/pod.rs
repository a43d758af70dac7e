//! The canary's pod: the node's network, no volumes, gone when it has ended.
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxFilter, PodSandboxMetadata,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use tonic::transport::Channel;

/// By this label the pod is found again, should this program be killed meanwhile.
const LABEL: &str = "sampan.dev/canary";
const NAME: &str = "sampan-canary";
const LOG: &str = "canary.log";
/// How long it may take: the first one is compiled.
const DEADLINE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct Pod<'a> {
    pub(super) channel: &'a Channel,
    pub(super) handler: &'a str,
    /// The image's id.
    pub(super) image: &'a str,
    /// Whether it is our image, of which we know what it writes.
    pub(super) own: bool,
    pub(super) systemd_cgroup: bool,
    /// The directory for its log, as containerd sees it and as we do.
    pub(super) logs: &'a Path,
    pub(super) logs_here: &'a Path,
}

impl Pod<'_> {
    pub(super) async fn run(&self, running: &dyn Fn()) -> Result<()> {
        let mut runtime = RuntimeServiceClient::new(self.channel.clone());
        // So that no earlier one's output is taken for this one's.
        let word = format!("{:016x}", RandomState::new().build_hasher().finish());
        let config = self.pod(&word);
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: self.handler.to_owned(),
        };
        let pod = runtime
            .run_pod_sandbox(request)
            .await
            .context("run the pod")?
            .into_inner()
            .pod_sandbox_id;
        let request = CreateContainerRequest {
            pod_sandbox_id: pod,
            config: Some(self.container(&word)),
            sandbox_config: Some(config),
        };
        let container = runtime
            .create_container(request)
            .await
            .context("create the container")?
            .into_inner()
            .container_id;
        let request = StartContainerRequest {
            container_id: container.clone(),
        };
        runtime
            .start_container(request)
            .await
            .context("start the container")?;
        running();
        let status = tokio::time::timeout(DEADLINE, self.ended(&container))
            .await
            .with_context(|| format!("wait {} s for the container's end", DEADLINE.as_secs()))??;
        let log = std::fs::read_to_string(self.logs_here.join(LOG)).unwrap_or_default();
        ensure!(
            status.exit_code == 0,
            "the container ended with {} ({} {}): {}",
            status.exit_code,
            status.reason,
            status.message,
            log.trim()
        );
        ensure!(
            !self.own || log.contains(&word),
            "the container ended with 0 and wrote `{}` instead of `{word}`",
            log.trim()
        );
        Ok(())
    }

    async fn ended(&self, container: &str) -> Result<ContainerStatus> {
        let mut runtime = RuntimeServiceClient::new(self.channel.clone());
        loop {
            let request = ContainerStatusRequest {
                container_id: container.to_owned(),
                verbose: false,
            };
            let status = runtime
                .container_status(request)
                .await
                .context("ask for the container's status")?
                .into_inner()
                .status
                .context("the answer has no status")?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn pod(&self, word: &str) -> PodSandboxConfig {
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces()),
            ..LinuxSandboxSecurityContext::default()
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: NAME.to_owned(),
                namespace: "sampan".to_owned(),
                uid: word.to_owned(),
                attempt: 0,
            }),
            log_directory: self.logs.to_string_lossy().into_owned(),
            labels: HashMap::from([(LABEL.to_owned(), "true".to_owned())]),
            linux: Some(LinuxPodSandboxConfig {
                // A parent that is there always: one of our own would be left empty behind.
                cgroup_parent: if self.systemd_cgroup {
                    "system.slice"
                } else {
                    "/"
                }
                .to_owned(),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    fn container(&self, word: &str) -> ContainerConfig {
        let security = LinuxContainerSecurityContext {
            namespace_options: Some(namespaces()),
            readonly_rootfs: true,
            no_new_privs: true,
            ..LinuxContainerSecurityContext::default()
        };
        let (command, args) = if self.own {
            (vec!["/".to_owned()], vec![word.to_owned()])
        } else {
            (Vec::new(), Vec::new())
        };
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: "canary".to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: self.image.to_owned(),
                ..ImageSpec::default()
            }),
            command,
            args,
            log_path: LOG.to_owned(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(security),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        }
    }
}

/// Its network is the node's.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}

/// Removes the pods of all canaries.
pub(super) async fn sweep(channel: &Channel) -> Result<()> {
    let mut runtime = RuntimeServiceClient::new(channel.clone());
    let filter = PodSandboxFilter {
        label_selector: HashMap::from([(LABEL.to_owned(), "true".to_owned())]),
        ..PodSandboxFilter::default()
    };
    let request = ListPodSandboxRequest {
        filter: Some(filter),
    };
    let pods = runtime
        .list_pod_sandbox(request)
        .await
        .context("list the pods of canaries")?
        .into_inner()
        .items;
    for pod in pods {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        runtime
            .stop_pod_sandbox(stop)
            .await
            .with_context(|| format!("stop the pod {}", pod.id))?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        runtime
            .remove_pod_sandbox(remove)
            .await
            .with_context(|| format!("remove the pod {}", pod.id))?;
    }
    Ok(())
}
