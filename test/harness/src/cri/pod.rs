use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StopPodSandboxRequest,
};
use tonic::Status;

use super::{ContainerBuilder, Cri};
use crate::unique;

/// A pod to be run.
#[derive(Debug)]
pub struct PodBuilder<'a> {
    cri: Cri<'a>,
    handler: String,
    config: PodSandboxConfig,
}

impl<'a> PodBuilder<'a> {
    pub(super) fn new(cri: Cri<'a>, handler: &str) -> Self {
        let name = format!("pod-{}", unique());
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption {
                pid: NamespaceMode::Container.into(),
                ..NamespaceOption::default()
            }),
            ..LinuxSandboxSecurityContext::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: unique(),
                namespace: "test".to_owned(),
                attempt: 0,
                name: name.clone(),
            }),
            hostname: name.clone(),
            log_directory: cri
                .containerd
                .scratch()
                .dir()
                .join("logs")
                .join(&name)
                .to_string_lossy()
                .into_owned(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", cri.containerd.scratch().cgroup_parent()),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        Self {
            cri,
            handler: handler.to_owned(),
            config,
        }
    }

    /// Adds an annotation to the pod.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.config
            .annotations
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves the pod in the host's network namespace.
    #[must_use]
    pub fn host_network(self) -> Self {
        self.config(|config| {
            let security = config
                .linux
                .as_mut()
                .and_then(|linux| linux.security_context.as_mut());
            if let Some(options) = security.and_then(|security| security.namespace_options.as_mut())
            {
                options.network = NamespaceMode::Node.into();
            }
        })
    }

    /// Changes the finished configuration.
    #[must_use]
    pub fn config(mut self, edit: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        edit(&mut self.config);
        self
    }

    /// Runs the pod.
    ///
    /// # Errors
    /// What CRI says.
    pub async fn run(self) -> Result<Pod<'a>> {
        let logs = PathBuf::from(&self.config.log_directory);
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let request = RunPodSandboxRequest {
            config: Some(self.config.clone()),
            runtime_handler: self.handler.clone(),
        };
        let answer = self.cri.runtime().run_pod_sandbox(request).await;
        let id = answer
            .with_context(|| format!("run a pod of {}", self.handler))?
            .into_inner()
            .pod_sandbox_id;
        self.cri.containerd.remember("k8s.io", &id);
        Ok(Pod {
            cri: self.cri,
            id,
            config: self.config,
        })
    }
}

/// A running pod.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    pub(super) cri: Cri<'a>,
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
}

impl<'a> Pod<'a> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &PodSandboxConfig {
        &self.config
    }

    /// Its address on the private bridge, which the test can reach; none with the host's network.
    ///
    /// # Errors
    /// What CRI says.
    pub async fn address(&self) -> Result<Option<IpAddr>> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        let status = self
            .cri
            .runtime()
            .pod_sandbox_status(request)
            .await?
            .into_inner()
            .status;
        let ip = status
            .and_then(|status| status.network)
            .map(|network| network.ip)
            .unwrap_or_default();
        if ip.is_empty() {
            Ok(None)
        } else {
            Ok(Some(
                ip.parse()
                    .with_context(|| format!("parse the address {ip}"))?,
            ))
        }
    }

    /// A container of this pod.
    #[must_use]
    pub fn container(&self, name: &str, image: &str) -> ContainerBuilder<'a> {
        ContainerBuilder::new(self.clone(), name, image)
    }

    /// Stops the pod and what runs in it.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri.runtime().stop_pod_sandbox(request).await.map(drop)
    }

    /// Stops the pod and removes it with its containers.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn remove(&self) -> Result<(), Status> {
        self.stop().await?;
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri
            .runtime()
            .remove_pod_sandbox(request)
            .await
            .map(drop)
    }
}
