//! Cgroups made by systemd, through libcgroups, which speaks D-Bus.

use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager,
};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use crate::error::JailError;

/// Makes the scope (or joins the slice), with the process in it and its limits.
pub(super) fn start_scope(
    unit: &str,
    pid: i32,
    resources: &LinuxResources,
) -> Result<(), JailError> {
    let manager = manager(unit)?;
    manager
        .add_task(Pid::from_raw(pid))
        .map_err(|error| failed(unit, error))?;
    apply(unit, &manager, resources)
}

/// Changes the limits of a scope that is there.
pub(super) fn set(unit: &str, resources: &LinuxResources) -> Result<(), JailError> {
    apply(unit, &manager(unit)?, resources)
}

fn manager(unit: &str) -> Result<AnyCgroupManager, JailError> {
    let config = CgroupConfig {
        cgroup_path: unit.into(),
        systemd_cgroup: true,
        container_name: unit.rsplit(':').next().unwrap_or(unit).to_owned(),
    };
    create_cgroup_manager(config).map_err(|error| failed(unit, error))
}

fn apply(
    unit: &str,
    manager: &AnyCgroupManager,
    resources: &LinuxResources,
) -> Result<(), JailError> {
    let options = ControllerOpt {
        resources,
        disable_oom_killer: false,
        oom_score_adj: None,
        freezer_state: None,
    };
    manager.apply(&options).map_err(|error| failed(unit, error))
}

fn failed(unit: &str, error: impl std::error::Error + Send + Sync + 'static) -> JailError {
    JailError::Systemd {
        unit: unit.to_owned(),
        source: error.into(),
    }
}
