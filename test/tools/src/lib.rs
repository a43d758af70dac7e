//! The programs that the tests run against: which versions (`test/versions.toml`), and where they lie in the cache.
//!
//! `cargo xtask tools` puts them there; the harness finds them here. Both compute the same directory names, so that a
//! changed pin is a new directory and a stale tool is never used by accident.
#![forbid(unsafe_code)]

mod cache;
mod locate;
mod pins;

pub use cache::{CacheError, cache_dir};
pub use locate::{Containerd, Kubernetes, LocateError, Tools, critest, helm};
pub use pins::{GoModule, Pins, Purpose};
