//! For programs that make no cgroups of systemd: the runner.

use oci_spec::runtime::LinuxResources;

use crate::error::JailError;

pub(super) fn start_scope(_: &str, _: i32, _: &LinuxResources) -> Result<(), JailError> {
    Err(JailError::NoSystemd)
}

pub(super) fn set(_: &str, _: &LinuxResources) -> Result<(), JailError> {
    Err(JailError::NoSystemd)
}
