use std::path::PathBuf;

use crate::Settings;

/// What the runtime options of the containerd handler (or `ctr run --runtime-config-path` and
/// friends) say, in our own words. Decoding protobuf is the shim's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Who manages cgroups (`SystemdCgroup`).
    pub cgroup_driver: CgroupDriver,
    /// The runner to execute (`BinaryName`); `None` is `sampan-runner` beside the shim.
    pub runner: Option<PathBuf>,
    /// Every other key, which has to be the name of a knob ([`crate::KNOBS`]).
    pub settings: Settings,
}

/// Who manages cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Directories below `/sys/fs/cgroup`, made by us.
    #[default]
    Cgroupfs,
    /// Scopes and slices, made by systemd over D-Bus; the path reads `slice:prefix:name`.
    Systemd,
}
