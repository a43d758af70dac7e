//! What exists of a container before there is one, and how it goes again.

use std::path::Path;

use jail::{Cgroup, Rootfs};
use plan::numbers::{Counted, Labels};
use plan::{CgroupDriver, Plan};

use crate::failure::{Failure, Outcome, of_jail};
use crate::native::Native;
use crate::pod::PodFiles;
use crate::record::{Record, RunDir, start_time};
use crate::stdio::Held;
use crate::supervisor::Supervisor;

/// What exists of a container that is being made.
pub(super) struct Made {
    pub(super) dir: RunDir,
    pub(super) record: Record,
    pub(super) cgroup: Cgroup,
    pub(super) rootfs: Option<Rootfs>,
    pub(super) held: Held,
    pub(super) native: Option<Native>,
    /// What it shares with its pod, where we keep that.
    pub(super) files: Option<PodFiles>,
}

impl Made {
    /// The record comes first, so that `delete` finds whatever follows.
    pub(super) async fn begin(
        supervisor: &Supervisor,
        plan: &Plan,
        bundle: &Path,
        files: Option<PodFiles>,
    ) -> Outcome<Self> {
        let dir = RunDir::new(
            &supervisor.config.run,
            &supervisor.namespace,
            plan.id.as_str(),
        );
        let record = Record {
            pid: 0,
            start_time: 0,
            cgroup: plan.cgroup.path.clone(),
            systemd: plan.cgroup.driver == CgroupDriver::Systemd,
            native: false,
            supervisor: supervisor.incarnation,
            bundle: Some(bundle.to_owned()),
            labels: plan
                .spec
                .annotations()
                .as_ref()
                .map(Labels::of)
                .unwrap_or_default(),
            counted: Counted::default(),
        };
        let of_cgroup = plan.cgroup.clone();
        // The kernel has one lock for all cgroups of the node, under which it waits for others to leave theirs.
        let (dir, record, cgroup) = supervisor
            .aside(move || {
                let mut record = record;
                dir.create().map_err(not_kept)?;
                dir.write(&record).map_err(not_kept)?;
                match Cgroup::create(&of_cgroup) {
                    Ok(cgroup) => {
                        // Written with the process's number.
                        record.counted = cgroup.counted();
                        Ok((dir, record, cgroup))
                    }
                    Err(error) => {
                        let _ = dir.remove();
                        Err(of_jail(&error))
                    }
                }
            })
            .await?;
        Ok(Self {
            dir,
            record,
            cgroup,
            rootfs: None,
            held: Held::default(),
            native: None,
            files,
        })
    }

    /// Notes the process, for `delete`.
    pub(super) async fn note(&mut self, supervisor: &Supervisor, pid: i32) -> Outcome<()> {
        self.record.pid = pid;
        self.record.start_time = start_time(pid).unwrap_or(0);
        let (dir, record) = (self.dir.clone(), self.record.clone());
        supervisor
            .aside(move || dir.write(&record).map_err(not_kept))
            .await
    }

    pub(super) async fn undo(self) {
        self.held.close().await;
        if let Some(native) = &self.native
            && let Err(failure) = native.delete().await
        {
            tracing::warn!(%failure, "a native container that was not created is not removed either");
        }
        let mut results = vec![self.cgroup.removed().await.map_err(anyhow::Error::from)];
        if let Some(rootfs) = &self.rootfs {
            results.push(rootfs.unmount().map_err(Into::into));
        }
        results.push(self.dir.remove().map_err(Into::into));
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(
                error = format!("{error:#}"),
                "something of a container that was not created stays"
            );
        }
    }
}

fn not_kept(error: std::io::Error) -> Failure {
    Failure::internal(anyhow::Error::new(error).context("keep the container's record"))
}
