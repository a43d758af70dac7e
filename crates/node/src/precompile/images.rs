//! The images of CRI's namespace, and when they change.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::{
    ListImagesRequest, PluginsRequest, PublishRequest, SubscribeRequest,
};
use containerd_client::types::{Descriptor, Envelope};
use prost_types::Any;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::canary;
use crate::containerd::request::{CRI, within};

/// A topic of ours, by which a subscription is known to hold.
const PROBE: &str = "/sampan/precompile";
const INTERVAL: Duration = Duration::from_millis(100);

/// An image by its name.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) target: Descriptor,
}

/// containerd's images with its events about them.
pub(super) struct Images {
    channel: Channel,
    events: Streaming<Envelope>,
}

impl Images {
    /// Subscribes; what changes from now on is noticed.
    pub(super) async fn watch(channel: &Channel) -> Result<Self> {
        let events = subscribe(channel)
            .await
            .context("subscribe to containerd's events")?;
        Ok(Self {
            channel: channel.clone(),
            events,
        })
    }

    /// Those that are there, each by the names that people know, but for the canary's, which is compiled by being tried.
    pub(super) async fn list(&self) -> Result<Vec<Image>> {
        let images = ImagesClient::new(self.channel.clone())
            .list(within(CRI, ListImagesRequest::default()))
            .await
            .context("list containerd's images")?
            .into_inner()
            .images;
        Ok(images
            .into_iter()
            // CRI gives every image its id as another name.
            .filter(|image| image.name != canary::IMAGE && !image.name.starts_with("sha256:"))
            .filter_map(|image| {
                Some(Image {
                    name: image.name,
                    target: image.target?,
                })
            })
            .collect())
    }

    /// Waits until there are others.
    pub(super) async fn changed(&mut self) -> Result<()> {
        self.events
            .message()
            .await
            .context("wait for containerd's events")?
            .context("containerd has ended its events")
            .map(drop)
    }

    /// The directory of the host in which blobs are files.
    pub(super) async fn content(&self) -> Result<PathBuf> {
        let request = PluginsRequest {
            filters: vec!["type==io.containerd.content.v1".to_owned()],
        };
        let plugins = IntrospectionClient::new(self.channel.clone())
            .plugins(request)
            .await
            .context("ask containerd for its content store")?
            .into_inner()
            .plugins;
        plugins
            .into_iter()
            .find_map(|plugin| plugin.exports.get("root").map(PathBuf::from))
            .context("containerd does not say where its content store is")
    }
}

/// containerd answers a subscription with the first event, so one of our own is published until that has come back.
async fn subscribe(channel: &Channel) -> Result<Streaming<Envelope>, Status> {
    let mut subscriber = EventsClient::new(channel.clone());
    let mut publisher = subscriber.clone();
    let request = SubscribeRequest {
        filters: vec![
            format!(r#"namespace=={CRI},topic~="^/images/""#),
            format!(r#"topic=="{PROBE}""#),
        ],
    };
    let publish = async {
        loop {
            let request = PublishRequest {
                topic: PROBE.to_owned(),
                event: Some(Any {
                    type_url: "google.protobuf.Empty".to_owned(),
                    value: Vec::new(),
                }),
            };
            if let Err(status) = publisher.publish(within(CRI, request)).await {
                break status;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        answer = subscriber.subscribe(request) => Ok(answer?.into_inner()),
        status = publish => Err(status),
    }
}
