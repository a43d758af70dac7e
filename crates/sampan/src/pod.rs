//! A container as the kubelet and containerd would describe it to the shim.

mod described;
mod environment;
mod manifest;
mod quantity;
mod settings;
mod volumes;

pub(crate) use described::{Described, Mount};
pub(crate) use environment::{Environment, expand};
pub(crate) use manifest::{Manifests, Workload, read};
pub(crate) use quantity::bytes;
pub(crate) use settings::{Given, annotations};
pub(crate) use volumes::{Content, Volume, of_mount};

/// What containerd puts before everything else into the environment of an image that sets none.
pub(crate) const PATH: (&str, &str) = (
    "PATH",
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
);
