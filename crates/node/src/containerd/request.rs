//! Requests of containerd's own services, each of which is of one of its namespaces.
use tonic::{Code, Request, Response, Status};

/// CRI's namespace.
pub(crate) const CRI: &str = "k8s.io";

/// A request in a namespace of containerd.
pub(crate) fn within<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // containerd takes no name that a header does not.
    if let Ok(value) = namespace.parse() {
        request.metadata_mut().insert("containerd-namespace", value);
    }
    request
}

/// The outcome of ending or removing something, for which that it is not there is no error.
pub(crate) fn gone_is_fine<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}
