//! The suite of Sampan in a Kubernetes cluster.
//!
//! Without KUBECONFIG a private cluster is brought up on this machine (see the crate `cluster`), once for the whole run,
//! and nothing may be left on its node at the end. With KUBECONFIG the suite runs in that cluster, where Sampan is
//! installed already; `SAMPAN_E2E_REGISTRY` is then a registry (`HOST:PORT`, plain HTTP) that this machine pushes to and
//! that its nodes pull from. What needs the node itself is skipped there, and says so.
//!
//! Pods have the RuntimeClass that `SAMPAN_RUNTIME_CLASS` names, `sampan` without it: so all of it can be run with one
//! supervisor for all of them.
//!
//! Every test has a namespace of its own, which goes with it.
#![forbid(unsafe_code)]

mod answer;
mod events;
mod load;
mod space;
mod suite;
mod wait;
mod world;

pub use answer::Answer;
pub use load::{Load, Report};
pub use space::{Output, Space, is_ready, restarts};
pub use suite::{Case, run, run_bare, skip};
pub use wait::eventually;
pub use world::{Fresh, World};

/// The RuntimeClass with a supervisor for each pod.
pub const CLASS: &str = "sampan";
/// The RuntimeClass with one supervisor for all its pods of a node.
pub const DENSE: &str = "sampan-dense";
/// The label of nodes that run our pods, with the value `true`.
pub const READY: &str = "sampan.dev/ready";
/// Marks pods that are meant to crash: their restarts are no failure of the suite.
pub const CRASHES: &str = "sampan.dev/test-crashes";

/// The RuntimeClass of the tests' pods.
#[must_use]
pub fn class() -> String {
    std::env::var("SAMPAN_RUNTIME_CLASS").unwrap_or_else(|_| CLASS.to_owned())
}
