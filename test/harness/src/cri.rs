mod container;
mod pod;

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ImageSpec, ImageStatusRequest, ListPodSandboxRequest, PullImageRequest, RemoveImageRequest,
    RemovePodSandboxRequest, StatusRequest, StopPodSandboxRequest,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::Containerd;
use crate::poll::until;

pub use container::{Container, ContainerBuilder, Exit, Logs};
pub use pod::{Pod, PodBuilder};

/// A client of CRI, as the kubelet is one.
#[derive(Clone, Debug)]
pub struct Cri<'a> {
    containerd: &'a Containerd,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl<'a> Cri<'a> {
    pub(crate) async fn connect(containerd: &'a Containerd) -> Result<Self> {
        // Messages of both packages go over the same kind of channel.
        let channel = containerd.channel().await?;
        let cri = Self {
            containerd,
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        };
        // CRI comes up after the other services, and the network after CRI.
        let mut runtime = cri.runtime.clone();
        until("CRI to be ready", Duration::from_secs(20), async || {
            let Ok(answer) = runtime.status(StatusRequest { verbose: false }).await else {
                return Ok(None);
            };
            let conditions = answer
                .into_inner()
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            let ready = |kind| {
                conditions
                    .iter()
                    .any(|condition| condition.r#type == kind && condition.status)
            };
            Ok((ready("RuntimeReady") && ready("NetworkReady")).then_some(()))
        })
        .await?;
        Ok(cri)
    }

    /// The raw runtime service, for calls that have no method here.
    #[must_use]
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    /// The raw image service.
    #[must_use]
    pub fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    /// Pulls a reference by CRI's default path; returns the image's id.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn pull(&self, reference: &str) -> Result<String, Status> {
        let request = PullImageRequest {
            image: Some(spec(reference)),
            ..PullImageRequest::default()
        };
        Ok(self
            .images()
            .pull_image(request)
            .await?
            .into_inner()
            .image_ref)
    }

    /// The id of an image, if it is there.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn image_id(&self, reference: &str) -> Result<Option<String>, Status> {
        let request = ImageStatusRequest {
            image: Some(spec(reference)),
            verbose: false,
        };
        Ok(self
            .images()
            .image_status(request)
            .await?
            .into_inner()
            .image
            .map(|image| image.id))
    }

    /// Removes an image.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn remove_image(&self, reference: &str) -> Result<(), Status> {
        self.images()
            .remove_image(RemoveImageRequest {
                image: Some(spec(reference)),
            })
            .await
            .map(drop)
    }

    /// Stops and removes every pod that there is, with its containers.
    ///
    /// # Errors
    /// What CRI says, with its code.
    pub async fn remove_all_pods(&self) -> Result<(), Status> {
        let pods = self
            .runtime()
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await?
            .into_inner()
            .items;
        for pod in pods {
            let request = StopPodSandboxRequest {
                pod_sandbox_id: pod.id.clone(),
            };
            self.runtime().stop_pod_sandbox(request).await?;
            let request = RemovePodSandboxRequest {
                pod_sandbox_id: pod.id,
            };
            self.runtime().remove_pod_sandbox(request).await?;
        }
        Ok(())
    }

    /// A pod of a runtime handler.
    #[must_use]
    pub fn pod(&self, handler: &str) -> PodBuilder<'a> {
        PodBuilder::new(self.clone(), handler)
    }

    /// Waits until CRI has noticed an image that was imported behind its back.
    pub(crate) async fn image_present(&self, reference: &str) -> Result<()> {
        until(
            "CRI to see an imported image",
            Duration::from_secs(10),
            async || {
                Ok(self
                    .image_id(reference)
                    .await
                    .context("ask for the image")?
                    .map(drop))
            },
        )
        .await
    }
}

fn spec(reference: &str) -> ImageSpec {
    ImageSpec {
        image: reference.to_owned(),
        ..ImageSpec::default()
    }
}
