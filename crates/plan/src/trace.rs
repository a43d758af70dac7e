//! Traces: whose a span is, what is told of it, and which are kept.
//!
//! The rules are those of W3C Trace Context (level 1) and of OpenTelemetry's samplers. Who makes spans are the supervisor and
//! its runners; who exports them is a listener (`sampan-node`) at a socket in the run directory. Where nobody listens there
//! is no [`NOTICE`], and nothing is traced.

mod context;
mod own;
mod parcel;
mod random;
mod sampler;
mod span;

use serde::{Deserialize, Serialize};

pub use context::{Context, SpanId, TRACEPARENT, TRACESTATE, TraceId};
pub use own::{Attributes, Event, Link, MOST, Own, Role, Scope};
pub use parcel::{Parcel, Service};
pub use sampler::{Sampler, SamplerError};
pub use span::{Kind, LIST, Span, TEXT, Value, nanoseconds};

/// The directory of the two below, in the run directory: root's alone.
pub const DIRECTORY: &str = "traces";
/// In the run directory: the datagram socket that takes [`Parcel`]s.
pub const SOCKET: &str = "traces/socket";
/// In the run directory: how to sample ([`Notice`] as JSON). It is there while somebody listens.
pub const NOTICE: &str = "traces/sampling";

/// What the listener tells those who make spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which traces are kept.
    pub sampler: Sampler,
}

/// What a runner is told where its guest is traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracing {
    /// Which traces are kept that begin at the guest.
    pub sampler: Sampler,
    /// The start of the container: what a command does belongs to it.
    pub start: Context,
}
