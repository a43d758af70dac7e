//! Questions to containerd, over its gRPC socket. Small answers only: blobs are read as files.

use std::path::PathBuf;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, ListImagesRequest, PluginsRequest,
};
use containerd_client::types::Descriptor;
use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::failure::{Failure, Kind, Outcome};

/// A connection to containerd, made when it is first needed and then kept.
pub(crate) struct Containerd {
    address: PathBuf,
    namespace: String,
    channel: OnceCell<Channel>,
    content: OnceCell<PathBuf>,
}

/// What containerd has recorded of a container, asked once: before Create comes, where there is time for that, or then.
/// What fails is asked again.
pub(crate) struct Recorded {
    id: String,
    name: OnceCell<String>,
    image: OnceCell<Option<NamedImage>>,
}

/// An image by its name in containerd's store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedImage {
    pub(crate) name: String,
    pub(crate) target: Descriptor,
}

impl Containerd {
    pub(crate) fn new(address: &str, namespace: &str) -> Self {
        Self {
            address: address.trim_start_matches("unix://").into(),
            namespace: namespace.to_owned(),
            channel: OnceCell::new(),
            content: OnceCell::new(),
        }
    }

    async fn channel(&self) -> Outcome<Channel> {
        let connect = || containerd_client::connect(&self.address);
        let channel = self
            .channel
            .get_or_try_init(connect)
            .await
            .map_err(|error| {
                Failure::new(
                    Kind::Internal,
                    format!(
                        "connect to containerd at {}: {error}",
                        self.address.display()
                    ),
                )
            })?;
        Ok(channel.clone())
    }

    fn request<T>(&self, message: T) -> Outcome<Request<T>> {
        let mut request = Request::new(message);
        let namespace = self.namespace.parse().map_err(Failure::internal)?;
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        Ok(request)
    }

    /// The name of the image that the container was made of, as containerd's record has it;
    /// empty for a container made of a plain rootfs.
    async fn image_of(&self, container: &str) -> Outcome<String> {
        let request = self.request(GetContainerRequest {
            id: container.to_owned(),
        })?;
        let answer = ContainersClient::new(self.channel().await?)
            .get(request)
            .await;
        let record = answer
            .map_err(|status| refused(&format!("container {container}"), &status))?
            .into_inner()
            .container;
        Ok(record.map(|record| record.image).unwrap_or_default())
    }

    /// The image of that name, if there is one.
    pub(crate) async fn image(&self, name: &str) -> Outcome<Option<NamedImage>> {
        if name.is_empty() {
            return Ok(None);
        }
        let request = self.request(GetImageRequest {
            name: name.to_owned(),
        })?;
        match ImagesClient::new(self.channel().await?).get(request).await {
            Ok(answer) => Ok(answer.into_inner().image.and_then(named)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(refused(&format!("image {name}"), &status)),
        }
    }

    /// Every image of the namespace.
    pub(crate) async fn images(&self) -> Outcome<Vec<NamedImage>> {
        let request = self.request(ListImagesRequest::default())?;
        let answer = ImagesClient::new(self.channel().await?).list(request).await;
        let images = answer
            .map_err(|status| refused("images", &status))?
            .into_inner()
            .images;
        Ok(images.into_iter().filter_map(named).collect())
    }

    /// Whether the image's name in a pod's annotations is what the user wrote: before 2.0 it is
    /// one of the names that the image id has.
    pub(crate) async fn says_what_the_user_wrote(&self) -> Outcome<bool> {
        let answer = VersionClient::new(self.channel().await?)
            .version(self.request(())?)
            .await;
        let version = answer
            .map_err(|status| refused("its version", &status))?
            .into_inner()
            .version;
        let major = version
            .trim_start_matches('v')
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        Ok(major.is_some_and(|major| major >= 2))
    }

    /// The directory of the content store, in which blobs are files.
    pub(crate) async fn content(&self) -> Outcome<PathBuf> {
        let ask = || async {
            let filters = vec!["type==io.containerd.content.v1".to_owned()];
            let request = self.request(PluginsRequest { filters })?;
            let answer = IntrospectionClient::new(self.channel().await?)
                .plugins(request)
                .await;
            let plugins = answer
                .map_err(|status| refused("plugins", &status))?
                .into_inner()
                .plugins;
            plugins
                .into_iter()
                .find_map(|plugin| plugin.exports.get("root").map(PathBuf::from))
                .ok_or_else(|| {
                    Failure::new(
                        Kind::Internal,
                        "containerd does not say where its content store is",
                    )
                })
        };
        self.content.get_or_try_init(ask).await.cloned()
    }
}

impl Recorded {
    pub(crate) fn of(container: &str) -> Self {
        Self {
            id: container.to_owned(),
            name: OnceCell::new(),
            image: OnceCell::new(),
        }
    }

    /// The name of its image; empty for a container made of a plain rootfs.
    pub(crate) async fn name(&self, containerd: &Containerd) -> Outcome<&str> {
        let ask = || containerd.image_of(&self.id);
        self.name.get_or_try_init(ask).await.map(String::as_str)
    }

    /// The image that has that name, if one still has.
    pub(crate) async fn image(&self, containerd: &Containerd) -> Outcome<Option<&NamedImage>> {
        let ask = || async { containerd.image(self.name(containerd).await?).await };
        self.image.get_or_try_init(ask).await.map(Option::as_ref)
    }
}

fn named(image: containerd_client::services::v1::Image) -> Option<NamedImage> {
    Some(NamedImage {
        name: image.name,
        target: image.target?,
    })
}

fn refused(what: &str, status: &Status) -> Failure {
    let kind = match status.code() {
        Code::NotFound => Kind::NotFound,
        _ => Kind::Internal,
    };
    Failure::new(
        kind,
        format!("ask containerd for {what}: {}", status.message()),
    )
}
