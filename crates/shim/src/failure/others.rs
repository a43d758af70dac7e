//! What the failures of others mean to who asked.

use jail::{JailError, Refusal, RefusalKind};
use store::StoreError;

use super::{Failure, Kind};

pub(crate) fn of_refusal(refusal: &Refusal) -> Failure {
    let kind = match refusal.kind {
        RefusalKind::InvalidProgram | RefusalKind::MissingImport => Kind::Invalid,
        RefusalKind::NotFound => Kind::NotFound,
        RefusalKind::Mount | RefusalKind::Permission | RefusalKind::Unsupported => {
            Kind::Precondition
        }
        RefusalKind::BadArtifact | RefusalKind::Internal => Kind::Internal,
    };
    Failure::new(kind, &refusal.message)
}

pub(crate) fn of_jail(error: &JailError) -> Failure {
    let kind = match error {
        JailError::Volume { source, .. } | JailError::Namespace { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Kind::NotFound
        }
        JailError::RootfsOption { .. }
        | JailError::NamespaceKind { .. }
        | JailError::Nul { .. } => Kind::Invalid,
        JailError::Volume { .. }
        | JailError::Namespace { .. }
        | JailError::Rootfs { .. }
        | JailError::Mount { .. }
        | JailError::Inside { .. }
        | JailError::Systemd { .. }
        | JailError::NoCgroups
        | JailError::Ended
        | JailError::Runner { .. } => Kind::Precondition,
        JailError::System { source, .. } if is_want(source) => Kind::Exhausted,
        JailError::Cgroup { .. }
        | JailError::System { .. }
        | JailError::Unmount { .. }
        | JailError::Wire { .. }
        | JailError::Silent { .. }
        | JailError::Threads { .. } => Kind::Internal,
    };
    let message = error.one_line();
    match error {
        JailError::System { source, .. } if source.raw_os_error() == Some(nix::libc::EAGAIN) => {
            Failure::new(kind, format!("{message}: {NO_PROCESS}"))
        }
        _ => Failure::new(kind, message),
    }
}

/// What the kernel means by "try again" where a process is made.
const NO_PROCESS: &str = "there are as many processes as there may be, in containerd's cgroup (pids.max; TasksMax= of its systemd service) or on the node (kernel.pid_max, kernel.threads-max)";

/// Whether the system has no more of something: processes, descriptors, memory.
fn is_want(error: &std::io::Error) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EAGAIN | EMFILE | ENFILE | ENOMEM)
    )
}

pub(crate) fn of_store(error: StoreError) -> Failure {
    let kind = match error.fault() {
        store::Fault::Exhausted => Kind::Exhausted,
        store::Fault::Precondition => Kind::Precondition,
        store::Fault::Internal => Kind::Internal,
    };
    Failure::new(kind, format!("{:#}", anyhow::Error::new(error)))
}
