//! The DaemonSet's program: it puts the runtime on a node, keeps it there, and takes it away again, each completely or
//! not at all.
//!
//! Read `step` first: everything that changes something is a named step of a straight list. `draft` works out what is to
//! be done without touching anything; `change` goes through the list, with a journal on the disk, and takes back what was
//! done when a step fails or a process was killed; `steps` is what each step does.
#![forbid(unsafe_code)]

pub mod canary;
pub mod change;
pub mod cluster;
pub mod config;
pub mod containerd;
pub mod draft;
pub mod files;
pub mod host;
pub mod incidents;
pub mod keep;
pub mod layout;
pub mod metrics;
pub mod numbers;
pub mod payload;
pub mod precompile;
pub mod run;
pub mod serve;
pub mod settings;
pub mod state;
pub mod status;
pub mod step;
pub mod steps;
pub mod traces;
pub mod watch;

pub use payload::Payload;
