//! `delete`: cleans up after a supervisor that is no more, from disk alone, as often as it is
//! asked.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::api::{ConnectRequest, DeleteRequest, DeleteResponse};
use containerd_shim_protos::protobuf::{Message, MessageField};
use plan::{CgroupDriver, CgroupPlan, ContainerId};

use crate::events::timestamp;
use crate::native::Native;
use crate::peer::Question;
use crate::pod::PodFiles;
use crate::record::{Incarnation, Record, RunDir, start_time};
use crate::{info, node, peer, socket, totals};

/// What a killed process is given as its status: 128 and SIGKILL, as runc's shim does.
const KILLED: u32 = 137;
/// How long a supervisor may take to give a container up; containerd gives this command five seconds.
const ANSWER: Duration = Duration::from_secs(2);
/// How long it may take to show whether it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

pub(crate) fn command(flags: &Flags) -> anyhow::Result<()> {
    let bundle = if flags.bundle.is_empty() {
        std::env::current_dir().context("find the bundle")?
    } else {
        PathBuf::from(&flags.bundle)
    };
    // It stands in paths.
    let id = ContainerId::new(&flags.id)?;
    ContainerId::new(&flags.namespace).context("namespace")?;
    let config = node::configuration()?.config;
    let dir = RunDir::new(&config.run, &flags.namespace, id.as_str());
    let record = dir.read();
    let socket = socket(&bundle, &flags.address, &flags.namespace, id.as_str());
    if record.as_ref().is_some_and(|record| !record.is_orphaned()) {
        abandon(&socket, id.as_str());
    }
    // All of it is tried; the first failure is told, for then something was left.
    let mut results = Vec::new();
    if let Some(orphan) = record.as_ref().filter(|record| record.is_orphaned())
        && orphan.supervisor != Incarnation::UNKNOWN
    {
        results.push(remove_all_of(orphan.supervisor, &dir, &bundle));
    }
    let own = dir.read();
    remove(id.as_str(), &dir, own.as_ref(), &bundle, &mut results);
    // Other containers may still have their supervisor there.
    let removed = socket::remove_dead(&socket, |supervisor| stays(supervisor, id.as_str()));
    results.push(removed.with_context(|| format!("remove {}", socket.display())));
    results.into_iter().collect::<anyhow::Result<()>>()?;
    let answer = DeleteResponse {
        pid: record
            .and_then(|record| u32::try_from(record.pid).ok())
            .unwrap_or(0),
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..Default::default()
    };
    info::print(&answer.write_to_bytes()?)
}

/// containerd has turned away from a supervisor that lives, as when it did not answer in time after containerd's restart:
/// it gives the container up too, or would have it for ever. One that does not answer now either changes nothing.
fn abandon(socket: &Path, id: &str) {
    let request = DeleteRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let question = Question {
        method: "Delete",
        metadata: Some((peer::ABANDONED, "")),
        message: &request,
        within: ANSWER,
    };
    if let Ok(supervisor) = UnixStream::connect(socket) {
        let _ = question.ask(supervisor);
    }
}

/// Whether a supervisor that can be reached will be there: one that is being killed hangs up.
fn stays(supervisor: UnixStream, id: &str) -> bool {
    let request = ConnectRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let question = Question {
        method: "Connect",
        metadata: None,
        message: &request,
        within: SIGN_OF_LIFE,
    };
    question.is_heard(supervisor)
}

/// Removes all other containers of a supervisor that is dead. containerd calls `delete` for the pods' own containers alone
/// (2.x), and gives it five seconds, which is little where a thousand are called at once: so the first does the work, one
/// that is stopped in the middle of it leaves the rest to the next, and the others find that it is done.
fn remove_all_of(supervisor: Incarnation, dir: &RunDir, bundle: &Path) -> anyhow::Result<()> {
    let _locked = dir.lock().context("lock the namespace's directory")?;
    if dir.read().is_none() {
        return Ok(());
    }
    let mut results = Vec::new();
    for (id, dir, record) in dir.others_of(supervisor) {
        // A pod without a container of its own has its bundle elsewhere.
        let beside = bundle.with_file_name(&id);
        let bundle = record.bundle.as_deref().unwrap_or(&beside);
        remove(&id, &dir, Some(&record), bundle, &mut results);
    }
    results.into_iter().collect()
}

/// Removes one container; what fails is added to the results.
fn remove(
    id: &str,
    dir: &RunDir,
    record: Option<&Record>,
    bundle: &Path,
    results: &mut Vec<anyhow::Result<()>>,
) {
    results.push(end_processes(record));
    totals::fold_killed(dir, KILLED);
    if record.is_some_and(|record| record.native) {
        results.push(Native::new(id, dir.native()).delete_now());
    }
    results.push(jail::unmount_rootfs(&bundle.join("rootfs")).map_err(Into::into));
    results.push(PodFiles::of(dir).release().map_err(Into::into));
    results.push(dir.remove().context("remove the container's directory"));
}

/// Kills what is in the container's cgroup, and its process if it never got there; then the
/// cgroup goes.
fn end_processes(record: Option<&Record>) -> anyhow::Result<()> {
    if let Some(record) = record
        && record.pid > 0
        && start_time(record.pid) == Some(record.start_time)
    {
        jail::kill_and_wait(record.pid)?;
    }
    // The record is the first thing that is made: without one there is nothing else.
    let Some(record) = record else { return Ok(()) };
    let plan = CgroupPlan {
        path: record.cgroup.clone(),
        driver: if record.systemd {
            CgroupDriver::Systemd
        } else {
            CgroupDriver::Cgroupfs
        },
        resources: None,
    };
    jail::Cgroup::open(&plan)?.remove()?;
    Ok(())
}

/// Where the container's supervisor listens, or did.
fn socket(bundle: &Path, containerd: &str, namespace: &str, id: &str) -> PathBuf {
    // containerd may be removing the bundle at the same time; outside pods the rule gives the name.
    let address = std::fs::read_to_string(bundle.join("address")).unwrap_or_else(|_| {
        StartOpts {
            address: containerd.to_owned(),
            namespace: namespace.to_owned(),
            ..Default::default()
        }
        .socket_address(id)
    });
    PathBuf::from(address.trim().trim_start_matches("unix://"))
}
