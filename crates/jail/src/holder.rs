//! The pod's own container: a process that holds the namespaces and waits.
//!
//! It is a copy of the supervisor that never executes a program, so most of its memory is the
//! supervisor's. It has no files, no rights and no way back.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use plan::JailPlan;
use rustix::fs::{CWD, Mode, OFlags};

use crate::ballast::Ballast;
use crate::cgroup::Cgroup;
use crate::child::{Child, in_words};
use crate::descriptors;
use crate::error::JailError;
use crate::seccomp;
use crate::spawn::{
    Namespaces, Never, Prepared, accompany, cgroup_of, enter_namespaces, start, tell, wire_pair,
};
use crate::step::{Failed, Step};
use crate::sys;
use crate::wire::{self, Packet};
use crate::{privileges, volumes};

/// Makes the process that holds the pod's namespaces; returns when it holds them.
///
/// It ends by SIGTERM or SIGINT, as Kubernetes' pause image does, with status 0; as the first
/// process of a pid namespace that the pod's containers share it lets the kernel reap orphans.
///
/// On the first thread of the supervisor, like [`crate::spawn`].
///
/// # Errors
/// The step that failed. No process is left then.
pub fn hold_pod(plan: &JailPlan, cgroup: &Cgroup) -> Result<Child, JailError> {
    let namespaces = Namespaces::prepare(plan)?;
    let root = volumes::nothing()?;
    let (ours, theirs) = wire_pair(3)?;
    let nul = |what| move |_| JailError::Nul { what };
    let new_uts = namespaces.new & libc::CLONE_NEWUTS != 0;
    let holding = Holding {
        root,
        hostname: plan
            .hostname
            .as_ref()
            .filter(|_| new_uts)
            .map(|name| name.clone().into_bytes()),
        sysctls: plan
            .sysctls
            .iter()
            .map(|one| {
                let path = format!("/proc/sys/{}", one.name.replace('.', "/"));
                Ok((
                    CString::new(path).map_err(nul("linux.sysctl"))?,
                    one.value.clone().into_bytes(),
                ))
            })
            .collect::<Result<Vec<_>, JailError>>()?,
        oom_score_adj: plan
            .oom_score_adj
            .map(|score| score.to_string().into_bytes()),
        user: (
            plan.user.uid,
            plan.user.gid,
            plan.user.additional_gids.clone(),
        ),
        filter: seccomp::holder().instructions(),
        bound: sys::on_main_thread(),
        ballast: Ballast::find(),
    };
    let entrance = cgroup.entrance()?;
    let prepared = Prepared {
        namespaces: &namespaces,
        entrance: &entrance,
        control: theirs.as_raw_fd(),
    };
    let child = start(&prepared, ours, cgroup_of(&entrance), |control| match hold(
        &prepared, &holding, control,
    ) {
        Ok(never) => match never {},
        Err(failed) => failed,
    })?;
    drop(theirs);
    accompany(&child, plan, &namespaces, cgroup, &entrance)?;
    let silent = JailError::Silent {
        who: "the pod's holder",
    };
    let Some(control) = child.control() else {
        return Err(silent);
    };
    match wire::next(control, true)? {
        // Its last step is to close the wire.
        Some(Packet::Holding) => match wire::next(control, true) {
            Err(JailError::Silent { .. }) => Ok(child),
            _ => Err(silent),
        },
        Some(Packet::Failed(failed)) if failed.step == Step::Sysctl => {
            let parameter = plan.sysctls.get(failed.index as usize);
            Err(JailError::Inside {
                step: failed.step.to_string(),
                what: parameter.map_or_else(String::new, |one| format!(" {}", one.name)),
                source: std::io::Error::from_raw_os_error(failed.errno),
            })
        }
        Some(Packet::Failed(failed)) => Err(in_words(failed)),
        _ => Err(silent),
    }
}

/// All that the child needs, made before it exists.
struct Holding {
    root: OwnedFd,
    hostname: Option<Vec<u8>>,
    sysctls: Vec<(CString, Vec<u8>)>,
    oom_score_adj: Option<Vec<u8>>,
    user: (u32, u32, Vec<u32>),
    filter: Vec<libc::sock_filter>,
    bound: bool,
    ballast: Ballast,
}

/// The holder's life, read from top to bottom. Nothing here allocates.
fn hold(prepared: &Prepared<'_>, holding: &Holding, control: RawFd) -> Result<Never, Failed> {
    let failed = |step: Step| move |error: std::io::Error| Failed::new(step, 0, &error);
    // Written while the user is still root, and before the user namespace takes the right away.
    if let Some(score) = &holding.oom_score_adj {
        put(c"/proc/self/oom_score_adj", score).map_err(failed(Step::OomScore))?;
    }
    enter_namespaces(prepared)?;
    if let Some(hostname) = &holding.hostname {
        rustix::system::sethostname(hostname)
            .map_err(|errno| failed(Step::Hostname)(errno.into()))?;
    }
    // /proc/sys shows the namespaces of the process that opens it.
    for (index, (path, value)) in holding.sysctls.iter().enumerate() {
        put(path, value).map_err(|error| Failed::new(Step::Sysctl, index, &error))?;
    }
    // The copy of the host's mounts goes: it would keep volumes busy that the host unmounts.
    sys::make_mounts_private().map_err(failed(Step::CutMounts))?;
    leave_root(holding.root.as_raw_fd()).map_err(failed(Step::EmptyRoot))?;
    // Orphans of a shared pid namespace are reaped by the kernel when nobody asks for them.
    sys::set_handler(libc::SIGCHLD, libc::SIG_IGN, 0).map_err(failed(Step::Privileges))?;
    let (uid, gid, groups) = &holding.user;
    privileges::close_the_ways_back()
        .and_then(|()| privileges::become_user(*uid, *gid, groups))
        .map_err(failed(Step::Privileges))?;
    if holding.bound {
        privileges::die_with_the_parent().map_err(failed(Step::Privileges))?;
    }
    // Everything of the supervisor goes, its socket above all: only the wire stays, at 0.
    sys::place(control, 0)
        .and_then(|()| sys::close_from(1, false))
        .and_then(|()| descriptors::former_limit())
        .map_err(failed(Step::PlaceDescriptors))?;
    if let Err(error) = sys::load_filter(&holding.filter, 0) {
        tell(0, failed(Step::Filter)(error));
    }
    // All signals are blocked since before the clone, so none was lost. Those that end nothing
    // here are not waited for: SIGKILL ends it always.
    // SAFETY: a copy of the supervisor, by its one thread; the kernel reset all handlers at the clone.
    unsafe { holding.ballast.drop_it_and_wait() }
}

fn put(path: &std::ffi::CStr, value: &[u8]) -> std::io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value)?;
    Ok(())
}

/// Makes the detached mount the root, and takes everything else away.
pub(crate) fn leave_root(root: RawFd) -> std::io::Result<()> {
    // SAFETY: the caller keeps the descriptor open.
    let root = unsafe { std::os::fd::BorrowedFd::borrow_raw(root) };
    mount_over_root(root)?;
    pivot_into(root)
}

/// Mounts the detached mount over the present root; paths still lead to what is below.
pub(crate) fn mount_over_root(root: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    use rustix::mount::{MoveMountFlags, move_mount};
    move_mount(
        root,
        c"",
        CWD,
        c"/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

/// Makes it the root, and takes the old one away with all that is below.
pub(crate) fn pivot_into(root: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    rustix::process::fchdir(root)?;
    // The old root is put on top of the new one, and from there taken away.
    sys::pivot_root_here()?;
    sys::detach(c".")?;
    rustix::process::chdir(c"/")?;
    Ok(())
}
