//! What is mounted where, as far as the manifests say it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{KeyToPath, PodSpec, VolumeMount};

use crate::pod::Manifests;

/// A volume as one mount shows it.
#[derive(Debug)]
pub(crate) struct Volume {
    /// What it is: `ConfigMap app`, `emptyDir`.
    pub(crate) what: String,
    pub(crate) content: Content,
    /// Whether the mount shows a directory; `None` where only the node knows.
    pub(crate) directory: Option<bool>,
    /// Whether nothing can be written there, whatever the mount says.
    pub(crate) readonly: bool,
}

/// Where a volume's files are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Empty,
    Host(PathBuf),
    /// Names and contents, from the manifests.
    Files(BTreeMap<String, Vec<u8>>),
    /// In the cluster.
    Elsewhere,
}

/// The volume that a mount means; `None` if the pod has none of that name.
pub(crate) fn of_mount(
    spec: &PodSpec,
    mount: &VolumeMount,
    manifests: &Manifests,
) -> Option<Volume> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.name == mount.name)?;
    let mut found = Volume {
        what: String::new(),
        content: Content::Elsewhere,
        directory: Some(true),
        readonly: false,
    };
    if volume.empty_dir.is_some() {
        found.what = "emptyDir".to_owned();
        found.content = Content::Empty;
    } else if let Some(host) = &volume.host_path {
        found.what = format!("hostPath {}", host.path);
        found.content = Content::Host(host.path.clone().into());
        found.directory = match host.type_.as_deref() {
            Some("Directory" | "DirectoryOrCreate") => Some(true),
            Some("File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice") => Some(false),
            _ => None,
        };
    } else if let Some(map) = &volume.config_map {
        found.what = format!("ConfigMap {}", map.name);
        found.content = files(manifests, "ConfigMap", &map.name, map.items.as_deref());
        found.readonly = true;
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        found.what = format!("Secret {name}");
        found.content = files(manifests, "Secret", name, secret.items.as_deref());
        found.readonly = true;
    } else if volume.downward_api.is_some() {
        found.what = "downwardAPI".to_owned();
        found.readonly = true;
    } else if volume.projected.is_some() {
        found.what = "projected".to_owned();
        found.readonly = true;
    } else if let Some(claim) = &volume.persistent_volume_claim {
        found.what = format!("claim {}", claim.claim_name);
        found.readonly = claim.read_only.unwrap_or(false);
    } else if let Some(image) = &volume.image {
        found.what = format!("image {}", image.reference.as_deref().unwrap_or_default());
        found.readonly = true;
    } else {
        found.what = "a volume of the cluster".to_owned();
    }
    let part = mount.sub_path.as_deref().or(mount.sub_path_expr.as_deref());
    if let Some(part) = part.filter(|part| !part.is_empty()) {
        found.directory = match &found.content {
            Content::Files(files) => Some(!files.contains_key(part)),
            _ => None,
        };
        found.what = format!("{part} of {}", found.what);
    }
    Some(found)
}

fn files(manifests: &Manifests, what: &str, name: &str, items: Option<&[KeyToPath]>) -> Content {
    let Some(values) = manifests.values(what, name) else {
        return Content::Elsewhere;
    };
    let path = |key: &str| match items {
        None => Some(key.to_owned()),
        Some(items) => {
            let item = items.iter().find(|item| item.key == key)?;
            Some(item.path.clone())
        }
    };
    let files = values
        .into_iter()
        .filter_map(|(key, value)| Some((path(&key)?, value)));
    Content::Files(files.collect())
}
