//! A container whose program is native code.

use std::path::Path;

use jail::Child;
use plan::{CgroupDriver, MountSource, Plan};

use super::{Made, Order};
use crate::container::Runs;
use crate::failure::{Failure, Kind, Outcome, of_jail};
use crate::native::Native;
use crate::stdio::Opened;
use crate::supervisor::Supervisor;

pub(super) async fn create(
    supervisor: &Supervisor,
    order: &Order,
    plan: &Plan,
    bundle: &Path,
    opened: Opened,
    made: &mut Made,
) -> Outcome<(Child, Runs)> {
    let mapped = |mount: &plan::MountPlan| {
        matches!(
            mount.source,
            MountSource::Bind {
                owners: Some(_),
                ..
            }
        )
    };
    if let Some(mount) = plan.jail.mounts.iter().find(|mount| mapped(mount)) {
        return Err(Failure::new(
            Kind::Unimplemented,
            format!(
                "mount {}: a native container in a pod with a user namespace of its own (hostUsers: false) is not implemented: libcontainer cannot map the owners of a mount's files",
                mount.destination
            ),
        ));
    }
    let state = made.dir.native();
    std::fs::create_dir_all(&state).map_err(Failure::internal)?;
    // libcontainer looks for the rootfs where the spec says; there it must be mounted.
    let rootfs = made
        .rootfs
        .as_mut()
        .ok_or_else(|| Failure::internal(anyhow::anyhow!("no rootfs")))?;
    if !order.rootfs.is_empty() {
        rootfs
            .attach(&bundle.join("rootfs"))
            .map_err(|error| of_jail(&error))?;
    }
    if let Some(files) = &made.files {
        files.share_memory().map_err(|error| of_jail(&error))?;
        // libcontainer reads what is on disk.
        plan.spec
            .save(bundle.join("config.json"))
            .map_err(Failure::internal)?;
    }
    made.record.native = true;
    made.note(supervisor, 0).await?;
    let native = Native::new(plan.id.as_str(), state);
    made.native = Some(native.clone());
    let systemd = plan.cgroup.driver == CgroupDriver::Systemd;
    let (pid, held) = native.create(bundle, systemd, opened).await?;
    made.held = held;
    made.note(supervisor, pid).await?;
    let child = Child::adopt(pid).map_err(|error| of_jail(&error))?;
    Ok((child, Runs::Native(native)))
}
