//! How a failure reaches containerd: one line, with the code that the contract asks for.

mod others;

use std::fmt::Display;

use containerd_shim_protos::ttrpc;
use containerd_shim_protos::ttrpc::Code;

pub(crate) use self::others::{of_jail, of_refusal, of_store};

/// Why a request failed, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What was asked for is wrong: the spec, the image, the program.
    Invalid,
    /// There is no such container, process, image or file.
    NotFound,
    /// The container exists already.
    Exists,
    /// The container is not in the state that the request needs, or the image is refused.
    Precondition,
    /// Memory, disk, time or places ran out.
    Exhausted,
    /// This shim has no such call.
    Unimplemented,
    /// This supervisor ends; another one has to be asked.
    Unavailable,
    /// A fault of ours or of the node.
    Internal,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Display) -> Self {
        // One line, whatever is inside: kubectl shows it in a table.
        let message = message
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        Self { kind, message }
    }

    pub(crate) fn internal(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Internal, format!("{:#}", error.into()))
    }

    pub(crate) fn invalid(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Invalid, format!("{:#}", error.into()))
    }

    /// The same, of a thing that is named.
    pub(crate) fn of(self, name: &str) -> Self {
        Self {
            message: format!("{name}: {}", self.message),
            ..self
        }
    }

    /// What the caller can do about it.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether what was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    pub(crate) fn unimplemented(call: &str) -> Self {
        Self::new(
            Kind::Unimplemented,
            format!("{call} is not implemented by Sampan"),
        )
    }

    pub(crate) fn no_container(id: &str) -> Self {
        Self::new(
            Kind::NotFound,
            format!("container {id} is not known to this shim"),
        )
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// An answer to containerd.
pub(crate) fn answer<T>(outcome: Outcome<T>) -> ttrpc::Result<T> {
    outcome.map_err(|failure| {
        tracing::debug!(%failure, "request refused");
        failure.into()
    })
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::Exists => Code::ALREADY_EXISTS,
            Kind::Precondition => Code::FAILED_PRECONDITION,
            Kind::Exhausted => Code::RESOURCE_EXHAUSTED,
            Kind::Unimplemented => Code::UNIMPLEMENTED,
            Kind::Unavailable => Code::UNAVAILABLE,
            Kind::Internal => Code::INTERNAL,
        };
        Self::RpcStatus(ttrpc::get_status(code, failure.message))
    }
}
