//! The containerd namespace in which everything of the bench lives, and the requests that carry it.

use std::collections::HashMap;

use containerd_client::tonic::{IntoRequest, Request};

/// containerd's namespace, not the kernel's.
pub(crate) const NAMESPACE: &str = "bench";
/// On-disk default of every containerd; what a Kubernetes node uses.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

/// `message` as a request in our namespace.
pub(crate) fn request<T>(message: T) -> Request<T> {
    within(message.into_request())
}

/// As [`request`], for a request that exists already (a stream).
pub(crate) fn within<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert(
        "containerd-namespace",
        containerd_client::tonic::metadata::MetadataValue::from_static(NAMESPACE),
    );
    request
}

/// Labels by which containerd's garbage collection, which also runs while we work, takes an object as wanted.
pub(crate) fn wanted() -> HashMap<String, String> {
    HashMap::from([(
        "containerd.io/gc.root".to_owned(),
        "2026-01-01T00:00:00Z".to_owned(),
    )])
}
