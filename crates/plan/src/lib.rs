//! What a container is to be: the OCI bundle, the pod's annotations and the runtime options
//! become one typed [`Plan`], or an error that names the field at fault.
//!
//! Pure data. Nothing here touches the system beyond reading `config.json` of the bundle, and
//! nothing here knows wasmtime or containerd. [`JailPlan`] and [`GuestPlan`] are the parts that
//! travel to the runner; they hold plain types only, so that the wire needs no self-describing
//! format.
#![forbid(unsafe_code)]

mod annotations;
mod bundle;
mod container;
pub mod coredump;
mod digest;
mod engine;
mod entry;
mod exec;
mod exit;
mod grants;
mod guest;
mod http;
pub mod incident;
mod jail;
mod json;
mod node;
pub mod numbers;
mod options;
mod policy;
mod stat;
mod termination;
pub mod trace;

pub use annotations::{
    Annotations, CONTAINER_NAME, CONTAINER_TYPE, IMAGE_NAME, ON_SANDBOX, POD_NAME, POD_NAMESPACE,
    POD_UID, PREFIX,
};
pub use bundle::{BundleError, read_spec};
pub use container::{CgroupPlan, ContainerId, Plan, PlanError, Role};
pub use coredump::CoreDump;
pub use digest::{Digest, DigestError};
pub use engine::{EngineSettings, Proposal};
pub use entry::Entry;
pub use exec::{ExecPlan, console_size};
pub use exit::ExitCode;
pub use grants::{Access, Mounted, Preopen, in_process, preopens};
pub use guest::{
    AccessLog, GuestLimits, GuestPlan, LogFormat, Network, Reach, RootAccess, Serving,
};
pub use http::HttpListen;
pub use jail::{
    Isolation, JailPlan, MountPlan, MountSource, Namespace, Owners, Propagation, Rlimit, Sysctl,
    User,
};
pub use json::{JsonError, from_json};
pub use node::{CompileConfig, NodeConfig, NodeConfigError, StoreConfig};
pub use options::{CgroupDriver, Options};
pub use policy::{
    Host, KNOBS, Knob, Layers, Outbound, Policy, Rule, Scope, Settings, ceilings_list,
    settings_table,
};
pub use stat::start_time;
