//! Native containers, through libcontainer, with their whole spec.
//!
//! Each function runs in a short-lived process of its own, of one thread: libcontainer forks and
//! joins namespaces. The container's first process becomes a child of the nearest subreaper, which
//! is the supervisor.

mod complaints;

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::{Capability, Process, Spec};

use crate::seccomp::{Filter, SeccompError};
use crate::sys;
use complaints::Complaints;

/// Why a native container could not be made, started or deleted.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The spec, or our adapted copy of it.
    #[error("{attempt} {}", path.display())]
    File {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `config.json` is no OCI configuration.
    #[error("read the spec in {}", path.display())]
    Spec {
        /// The bundle.
        path: PathBuf,
        /// What the parser said.
        source: oci_spec::OciSpecError,
    },
    /// The seccomp profile cannot be used.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// libcontainer refused or failed.
    #[error("{step} the container: {reason}")]
    Container {
        /// `create`, `start`, `execute in` or `delete`.
        step: &'static str,
        /// What libcontainer said, all of it in one line.
        reason: String,
    },
}

fn failed(step: &'static str) -> impl Fn(LibcontainerError) -> NativeError {
    move |error| {
        // Some of its errors repeat their source in their own text.
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = error.source();
        }
        NativeError::Container {
            step,
            reason: reason.replace('\n', " "),
        }
    }
}

/// Makes the container of a bundle, up to the program itself, which waits for [`start`]. Its
/// standard streams are those of the calling process; nothing else of it stays open there. With a `console` it gets a
/// terminal instead, whose master is sent to that socket.
///
/// Returns the number of its first process.
///
/// # Errors
/// [`NativeError`]. Nothing is left then.
pub fn create(
    bundle: &Path,
    state: &Path,
    id: &str,
    systemd: bool,
    console: Option<&Path>,
) -> Result<i32, NativeError> {
    let config = bundle.join("config.json");
    let mut spec = Spec::load(&config).map_err(|source| NativeError::Spec {
        path: bundle.to_owned(),
        source,
    })?;
    if let Some(process) = spec.process_mut() {
        // The request decides; libcontainer wants both to be the same.
        process.set_terminal(Some(console.is_some()));
    }
    let adapted = adapt(spec, bundle, systemd)?;
    make_working_directory(&adapted.spec);
    // libcontainer reads the spec from a bundle; containerd's own stays as it is.
    let own_bundle = bundle_of(state, id);
    fs::create_dir_all(&own_bundle).map_err(file("make", &own_bundle))?;
    let own_config = own_bundle.join("config.json");
    adapted
        .spec
        .save(&own_config)
        .map_err(|source| NativeError::Spec {
            path: own_bundle.clone(),
            source,
        })?;
    let executor = Filtered {
        filter: adapted.filter,
        borrowed_admin: adapted.borrowed_admin,
        foreign: open_descriptors(),
    };
    let complaints = Complaints::new().map_err(file("make a memory file for", bundle))?;
    let built = complaints.during(|| {
        ContainerBuilder::new(id.to_owned(), SyscallType::default())
            .with_executor(executor)
            .with_console_socket(console)
            .with_root_path(state)
            .and_then(|builder| builder.validate_id())
            .and_then(|builder| {
                builder
                    .as_init(&own_bundle)
                    .with_systemd(adapted.systemd)
                    .with_detach(true)
                    .build()
            })
    });
    let container = match built {
        Ok(container) => container,
        Err(error) => {
            let _ = fs::remove_dir_all(&own_bundle);
            return Err(complaints.about("create", error));
        }
    };
    container
        .pid()
        .map(|pid| pid.as_raw())
        .ok_or_else(|| NativeError::Container {
            step: "create",
            reason: "it has no process".to_owned(),
        })
}

/// Executes one more process in a container that runs: the OCI process in that file, as `runc exec` does. Its standard
/// streams are those of the calling process, or with a `console` a terminal, as for [`create`].
///
/// Returns its number.
///
/// # Errors
/// [`NativeError`], e.g. for a program that does not exist. No process is left then.
pub fn exec(
    state: &Path,
    id: &str,
    process: &Path,
    console: Option<&Path>,
) -> Result<i32, NativeError> {
    let bundle = bundle_of(state, id);
    let spec = Spec::load(bundle.join("config.json")).map_err(|source| NativeError::Spec {
        path: bundle,
        source,
    })?;
    // The container's filter counts for everything in it.
    let filter = filter_of(&spec)?;
    let text = fs::read(process).map_err(file("read", process))?;
    let mut adapted: Process = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(file("understand", process))?;
    adapted.set_terminal(Some(console.is_some()));
    let borrowed_admin = filter.is_some() && borrow_admin(&mut adapted);
    let text = serde_json::to_vec(&adapted)
        .map_err(io::Error::from)
        .map_err(file("write", process))?;
    fs::write(process, text).map_err(file("write", process))?;
    let executor = Filtered {
        filter,
        borrowed_admin,
        foreign: open_descriptors(),
    };
    let complaints = Complaints::new().map_err(file("make a memory file for", process))?;
    let built = complaints.during(|| {
        ContainerBuilder::new(id.to_owned(), SyscallType::default())
            .with_executor(executor)
            .with_console_socket(console)
            .with_root_path(state)
            .and_then(|builder| {
                builder
                    .as_tenant()
                    .with_process(Some(process))
                    .with_detach(true)
                    .build()
            })
    });
    match built {
        Ok(pid) => Ok(pid.as_raw()),
        Err(error) => {
            end_children();
            Err(complaints.about("execute in", error))
        }
    }
}

/// What libcontainer has started for a process that then failed is a child of this one. Unless it is waited for here, it
/// becomes a zombie of the supervisor, which does not know it.
fn end_children() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for child in children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
    {
        if let Some(pid) = rustix::process::Pid::from_raw(child) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        }
    }
}

/// Where libcontainer reads the spec of a container from.
fn bundle_of(state: &Path, id: &str) -> PathBuf {
    state.join(format!("{id}.bundle"))
}

/// Lets the program of a created container run.
///
/// # Errors
/// [`NativeError::Container`], e.g. if it runs already.
pub fn start(state: &Path, id: &str) -> Result<(), NativeError> {
    Container::load(state.join(id))
        .and_then(|mut container| container.start())
        .map_err(failed("start"))
}

/// Deletes a container in whatever state, killing what is left of it; also what a [`create`] that
/// was killed has left. That there is none is fine.
///
/// # Errors
/// [`NativeError`] for what stays.
pub fn delete(state: &Path, id: &str) -> Result<(), NativeError> {
    let directory = state.join(id);
    match Container::load(directory.clone()) {
        Ok(mut container) => {
            if let Err(error) = container.delete(true) {
                // Where the cgroup went before, libcontainer cannot list its processes. What
                // counts is that none of them lives.
                let _ = container.refresh_status();
                if container.status() != ContainerStatus::Stopped {
                    return Err(failed("delete")(error));
                }
                tracing::debug!(%error, id, "libcontainer did not delete all of it");
            }
        }
        // Nothing, or half a state: the directory goes below.
        Err(error) => tracing::debug!(%error, id, "no container to delete"),
    }
    for directory in [directory, bundle_of(state, id)] {
        match fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(NativeError::File {
                    attempt: "remove",
                    path: directory,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A working directory that the image does not have is made, as by runc. Where that fails, libcontainer says better what is
/// wrong with it.
fn make_working_directory(spec: &Spec) {
    if let (Some(root), Some(process)) = (spec.root(), spec.process())
        && let Some(cwd) = process.cwd().to_str()
        && let Ok(root) = fs::File::open(root.path())
    {
        let _ = crate::enter::mount_point(root.as_fd(), cwd, true);
    }
}

struct Adapted {
    spec: Spec,
    filter: Option<Filter>,
    borrowed_admin: bool,
    systemd: bool,
}

/// The spec as libcontainer needs it to do what it says.
fn adapt(mut spec: Spec, bundle: &Path, systemd: bool) -> Result<Adapted, NativeError> {
    if let Some(root) = spec.root_mut()
        && root.path().is_relative()
    {
        root.set_path(bundle.join(root.path()));
    }
    // libcontainer changes the whole tree whatever the word is, and knows the short words alone.
    if let Some(linux) = spec.linux_mut()
        && let Some(short) = match linux.rootfs_propagation().as_deref() {
            Some("rshared") => Some("shared"),
            Some("rslave") => Some("slave"),
            Some("rprivate") => Some("private"),
            Some("runbindable") => Some("unbindable"),
            _ => None,
        }
    {
        linux.set_rootfs_propagation(Some(short.to_owned()));
    }
    // On version 1 of cgroups libcontainer takes systemd's name for a path.
    let systemd_is_there = Path::new("/run/systemd/system").exists()
        && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if systemd
        && !systemd_is_there
        && let Some(linux) = spec.linux_mut()
        && let Some(path) = linux
            .cgroups_path()
            .as_ref()
            .and_then(|path| path.to_str())
            .map(crate::cgroup::expand)
    {
        linux.set_cgroups_path(Some(path.into()));
    }
    let filter = filter_of(&spec)?;
    let borrowed_admin = filter.is_some() && spec.process_mut().as_mut().is_some_and(borrow_admin);
    Ok(Adapted {
        spec,
        filter,
        borrowed_admin,
        systemd: systemd && systemd_is_there,
    })
}

fn filter_of(spec: &Spec) -> Result<Option<Filter>, NativeError> {
    let profile = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    Ok(profile.map(Filter::compile).transpose()?)
}

/// Without "no new privileges" only `CAP_SYS_ADMIN` may load a filter, and libcontainer has
/// dropped it when our turn comes. So it is kept until then: the process itself gives it up
/// right after, and no exec can bring it back, for it is not in the bounding set.
fn borrow_admin(process: &mut Process) -> bool {
    if process.no_new_privileges().unwrap_or(false) {
        return false;
    }
    let Some(mut capabilities) = process.capabilities().clone() else {
        return false;
    };
    let mut permitted = capabilities.permitted().clone().unwrap_or_default();
    let mut effective = capabilities.effective().clone().unwrap_or_default();
    let borrowed = permitted.insert(Capability::SysAdmin);
    effective.insert(Capability::SysAdmin);
    capabilities
        .set_permitted(Some(permitted))
        .set_effective(Some(effective));
    process.set_capabilities(Some(capabilities));
    borrowed
}

fn file(attempt: &'static str, path: &Path) -> impl Fn(io::Error) -> NativeError {
    let path = path.to_owned();
    move |source| NativeError::File {
        attempt,
        path: path.clone(),
        source,
    }
}

/// The descriptors above the standard streams: those of the program that called us.
fn open_descriptors() -> Vec<RawFd> {
    fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect()
}

/// Executes the program as libcontainer does, with the spec's filter over it: libcontainer itself
/// is built without the C library for filters.
#[derive(Clone)]
struct Filtered {
    filter: Option<Filter>,
    borrowed_admin: bool,
    foreign: Vec<RawFd>,
}

impl Executor for Filtered {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec
            .process()
            .as_ref()
            .and_then(|process| process.args().as_ref());
        let argv = args
            .ok_or(ExecutorError::InvalidArg)?
            .iter()
            .map(|argument| CString::new(argument.as_str()).map_err(|_| ExecutorError::InvalidArg))
            .collect::<Result<Vec<_>, _>>()?;
        let program = argv.first().ok_or(ExecutorError::InvalidArg)?;
        if let Some(filter) = &self.filter {
            filter.load().map_err(|error| {
                ExecutorError::Other(format!("load the seccomp profile of the spec: {error}"))
            })?;
        }
        if self.borrowed_admin {
            // The profile may forbid it; then the exec takes it away.
            let _ = sys::drop_effective_capability(CAP_SYS_ADMIN);
        }
        let mut pointers: Vec<*const c_char> =
            argv.iter().map(|argument| argument.as_ptr()).collect();
        pointers.push(std::ptr::null());
        // SAFETY: C strings that live through the call, and a null pointer at the end.
        unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
        let error = io::Error::last_os_error();
        Err(ExecutorError::Other(format!(
            "execute {}: {error}",
            program.to_string_lossy()
        )))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        // Whoever waits at the other end of the caller's descriptors would wait for this process.
        for number in &self.foreign {
            // SAFETY: numbers that were open before libcontainer began and that nothing here owns;
            // this is a copy of the caller that will never be the caller.
            unsafe { libc::close(*number) };
        }
        // The terminal is its streams by now, and libcontainer leaves it without a size.
        let process = spec.process().as_ref();
        let terminal = process.filter(|process| process.terminal() == Some(true));
        if let Some((columns, rows)) = terminal.and_then(plan::console_size) {
            // No reason not to run.
            let _ = sys::set_window_size(io::stdin().as_fd(), columns, rows);
        }
        (DefaultExecutor {}).validate(spec)
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        (DefaultExecutor {}).setup_envs(envs)
    }
}

const CAP_SYS_ADMIN: u32 = 21;
