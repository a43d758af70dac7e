use std::collections::HashMap;

/// Prefix of the annotations that are ours.
pub const PREFIX: &str = "sampan.dev/";
/// CRI: the name of the image as the user wrote it (containerd 2.0 and newer).
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// CRI: the id of the pod's own container, by which the containers of a pod find each other.
pub const ON_SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// CRI: the pod's uid, and the container's name in the pod.
const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
const HTTP_LISTEN: &str = "sampan.dev/http-listen";

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
    /// `sampan.dev/http-listen`.
    pub http_listen: Option<String>,
}

impl Annotations {
    /// Picks out what is ours.
    ///
    /// # Errors
    /// The names of the `sampan.dev/` annotations that do not exist, sorted.
    pub fn read(all: &HashMap<String, String>) -> Result<Self, Vec<String>> {
        let mut unknown: Vec<String> = all
            .keys()
            .filter(|key| key.starts_with(PREFIX) && key.as_str() != HTTP_LISTEN)
            .cloned()
            .collect();
        if !unknown.is_empty() {
            unknown.sort();
            return Err(unknown);
        }
        let get = |key: &str| all.get(key).cloned();
        Ok(Self {
            pod: get(ON_SANDBOX),
            is_pod: all
                .get(CONTAINER_TYPE)
                .is_some_and(|kind| kind == "sandbox"),
            image_name: get(IMAGE_NAME),
            pod_uid: get(POD_UID),
            container_name: get(CONTAINER_NAME),
            http_listen: get(HTTP_LISTEN),
        })
    }
}
