//! The operating-system isolation of one container.
//!
//! The supervisor's side prepares ([`Rootfs`], [`Cgroup`]) and makes processes ([`spawn`],
//! [`hold_pod`], [`spawn_compiler`]); the runner's side goes through the [`Door`] into the jail.
//! Between them is a typed wire ([`Launch`], [`Report`]). The privileged parts are two linear
//! narratives: `spawn::child` (from clone to exec) and `enter::enter` (from the first line of the
//! runner to the first line of the guest).
//!
//! Needs Linux 5.14: detached mounts with attributes (`mount_setattr`, 5.12), `clone3`,
//! `close_range`, `openat2`.
//!
//! This is the crate in which `unsafe` is allowed: every block is one system call, or memory that
//! a system call asks for.

mod ballast;
mod cgroup;
mod child;
mod compile;
mod daemon;
mod descriptors;
mod door;
mod enter;
mod error;
mod holder;
mod join;
mod leftovers;
#[cfg(feature = "native")]
pub mod native;
mod numbers;
mod owners;
mod patience;
mod privileges;
mod rootfs;
mod seccomp;
mod shm;
mod signals;
mod spans;
mod spawn;
mod step;
mod sys;
#[cfg(feature = "native")]
mod terminal;
mod volumes;
#[cfg(feature = "native")]
mod watch;
mod wire;

pub use cgroup::{Cgroup, Crowd, IoCount, OomWatch, Stats, StatsV1, StatsV2, UsageV1};
pub use child::Child;
pub use compile::{CompileRequest, enter_compile_jail, spawn_compiler};
pub use daemon::{Forked, become_subreaper, fork_daemon};
pub use descriptors::{most_descriptors, raise_descriptor_limit, with_former_limit};
pub use door::{Door, Go, Inside, Orders};
pub use error::JailError;
pub use holder::hold_pod;
pub use join::{JoinRequest, join};
pub use leftovers::{kill_and_wait, unmount_rootfs};
pub use numbers::{Numbers, page};
pub use rootfs::{Rootfs, RootfsMount};
pub use seccomp::{Filter, SeccompError};
pub use shm::{mount_shared_memory, unmount_shared_memory};
pub use signals::{end, end_on_signals, let_signals_in};
pub use spans::{SpanReceiver, SpanSender, Told};
pub use spawn::{SpawnRequest, spawn};
#[cfg(feature = "native")]
pub use terminal::Master;
#[cfg(feature = "native")]
pub use watch::readable;
pub use wire::{Laps, Launch, Refusal, RefusalKind, Report};
