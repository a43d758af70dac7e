use std::collections::HashMap;

use crate::Settings;

/// Prefix of the annotations that are ours.
pub const PREFIX: &str = "sampan.dev/";
/// CRI: the name of the image as the user wrote it (containerd 2.0 and newer).
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// CRI: the id of the pod's own container, by which the containers of a pod find each other.
pub const ON_SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
/// CRI: `sandbox` for the pod's own container.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// CRI: the pod's namespace in Kubernetes.
pub const POD_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// CRI: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// CRI: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// CRI: the container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";

/// The annotations of a container that mean something to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The pod's id ([`ON_SANDBOX`]).
    pub pod: Option<String>,
    /// Whether this container is the pod itself (CRI's `sandbox` container).
    pub is_pod: bool,
    /// The image's name as the user wrote it ([`IMAGE_NAME`]).
    pub image_name: Option<String>,
    /// The pod's uid in Kubernetes.
    pub pod_uid: Option<String>,
    /// The container's name in the pod's manifest.
    pub container_name: Option<String>,
    /// Everything below [`PREFIX`], without it.
    pub settings: Settings,
}

impl Annotations {
    /// Picks out what is ours. Whether the names below [`PREFIX`] exist is for [`crate::Policy`] to say.
    #[must_use]
    pub fn read(all: &HashMap<String, String>) -> Self {
        let get = |key: &str| all.get(key).cloned();
        let ours = all
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value.clone())));
        Self {
            pod: get(ON_SANDBOX),
            is_pod: all
                .get(CONTAINER_TYPE)
                .is_some_and(|kind| kind == "sandbox"),
            image_name: get(IMAGE_NAME),
            pod_uid: get(POD_UID),
            container_name: get(CONTAINER_NAME),
            settings: Settings::new(ours),
        }
    }
}
