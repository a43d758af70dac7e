//! From the supervisor to the first instruction of the runner.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plan::{Access, Isolation, JailPlan};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::cgroup::{Cgroup, Entrance};
use crate::child::{Child, View, in_words, word};
use crate::descriptors;
use crate::error::JailError;
use crate::owners::{self, Mappings};
use crate::rootfs::Rootfs;
use crate::step::{Failed, Step};
use crate::sys::{self, Cloned};
use crate::volumes::{self, Volume};
use crate::wire::{
    self, ARTIFACT, CONTROL, Envelope, FIRST_VOLUME, LAUNCH, Launch, NUMBERS, Packet, ROOTFS,
};

/// What a runner is made from.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
    /// The static binary to execute, with the one argument `run`.
    pub runner: &'a Path,
    /// What it is to become.
    pub launch: &'a Launch,
    /// The compiled program.
    pub artifact: BorrowedFd<'a>,
    /// The container's root filesystem.
    pub rootfs: &'a Rootfs,
    /// Standard input, output and error; `None` is `/dev/null`.
    pub stdio: [Option<OwnedFd>; 3],
    /// Whether standard input is a terminal, to be the one that controls the runner.
    pub terminal: bool,
    /// Where it is from its first instruction on.
    pub cgroup: &'a Cgroup,
    /// Where it counts ([`crate::page`]).
    pub numbers: Option<BorrowedFd<'a>>,
}

/// Executes a runner in its cgroup and namespaces and returns at once; the runner enters the rest
/// of the jail itself and then reports ([`Child::read_report`]).
///
/// On the first thread of the supervisor: the runner is killed when the thread that made it ends.
/// (From another thread it works, without that bond.)
///
/// # Errors
/// [`JailError::Volume`] for a source that is missing, [`JailError::Namespace`] for a namespace
/// that is gone, and what the kernel refuses. No process is left then.
pub fn spawn(request: SpawnRequest<'_>) -> Result<Child, JailError> {
    let SpawnRequest {
        runner,
        launch,
        artifact,
        rootfs,
        stdio,
        terminal,
        cgroup,
        numbers,
    } = request;
    let namespaces = Namespaces::prepare(&launch.jail)?;
    let mut mappings = Mappings::default();
    let volumes = launch
        .jail
        .mounts
        .iter()
        .map(|mount| volumes::open(mount, &mut mappings))
        .collect::<Result<Vec<Volume>, _>>()?;
    if namespaces.user.is_some() {
        // The runner has no rights over the mount there that it could do this with.
        rootfs.harden()?;
    }
    let view = View {
        mounted: volumes
            .iter()
            .map(|volume| volume.mounted.clone())
            .collect(),
        root: Access::from_readonly(rootfs.readonly() || launch.jail.root_readonly),
    };
    let entrance = cgroup.entrance()?;
    let outfit = Outfit {
        runner,
        launch,
        artifact,
        place: rootfs.dir(),
        joins: false,
        view: &view,
        volumes: volumes.iter().map(|volume| volume.mount.as_fd()).collect(),
        stdio,
        terminal,
        numbers,
    };
    let child = outfit.execute(&namespaces, &entrance)?;
    accompany(&child, &launch.jail, &namespaces, cgroup, &entrance)?;
    Ok(child.seeing(view))
}

/// What a runner has at hand when it begins.
pub(crate) struct Outfit<'a> {
    pub(crate) runner: &'a Path,
    pub(crate) launch: &'a Launch,
    pub(crate) artifact: BorrowedFd<'a>,
    /// The rootfs, or the mount namespace to be joined.
    pub(crate) place: BorrowedFd<'a>,
    pub(crate) joins: bool,
    pub(crate) view: &'a View,
    /// Detached mounts, as many as the view has, or none where they are mounted already.
    pub(crate) volumes: Vec<BorrowedFd<'a>>,
    pub(crate) stdio: [Option<OwnedFd>; 3],
    pub(crate) terminal: bool,
    pub(crate) numbers: Option<BorrowedFd<'a>>,
}

impl Outfit<'_> {
    /// From clone to exec. What the child waits for is the caller's to do ([`accompany`]).
    pub(crate) fn execute(
        self,
        namespaces: &Namespaces,
        entrance: &Entrance,
    ) -> Result<Child, JailError> {
        let end = FIRST_VOLUME as usize + self.volumes.len();
        let (ours, theirs) = wire_pair(end)?;
        let launch_file = wire::pack(&Envelope {
            launch: self.launch,
            volumes: self.view.mounted.clone(),
            root: self.view.root,
            bound: sys::on_main_thread(),
            user_namespace: namespaces.user.is_some(),
            joins: self.joins,
        })?;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(JailError::errno("open /dev/null"))?;
        let mut placed = Placed::new(end);
        for (number, stream) in self.stdio.iter().enumerate() {
            placed.add(
                stream.as_ref().map_or(null.as_fd(), AsFd::as_fd),
                number as RawFd,
            )?;
        }
        placed.add(theirs.as_fd(), CONTROL)?;
        placed.add(self.artifact, ARTIFACT)?;
        placed.add(self.place, ROOTFS)?;
        placed.add(launch_file.as_fd(), LAUNCH)?;
        placed.add(self.numbers.unwrap_or(null.as_fd()), NUMBERS)?;
        for (number, volume) in (FIRST_VOLUME..).zip(&self.volumes) {
            placed.add(*volume, number)?;
        }
        let program =
            CString::new(self.runner.as_os_str().as_bytes()).map_err(|_| JailError::Nul {
                what: "the runner's path",
            })?;
        let argv = [program.as_ptr(), c"run".as_ptr(), std::ptr::null()];
        let file = open_program(self.runner, end)?;
        let execution = Execution {
            program: &program,
            file: file.as_fd(),
            argv: &argv,
            limits: None,
            terminal: self.terminal,
        };
        let prepared = Prepared {
            namespaces,
            entrance,
            control: theirs.as_raw_fd(),
        };
        start(&prepared, ours, cgroup_of(entrance), |_| {
            enter_and_execute(&prepared, &placed, &execution)
        })
    }
}

/// A pair of sockets for packets. The child's end has a number from `end` on: it stays the child's
/// even when others are placed below, so that every failure can be told.
pub(crate) fn wire_pair(end: usize) -> Result<(OwnedFd, OwnedFd), JailError> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(JailError::errno("make a pair of sockets"))?;
    let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, end as RawFd)
        .map_err(JailError::errno("copy a descriptor"))?;
    Ok((ours, theirs))
}

/// Opens the program that a child is to execute, by a number from `end` on, like [`wire_pair`].
pub(crate) fn open_program(path: &Path, end: usize) -> Result<OwnedFd, JailError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::fcntl_dupfd_cloexec(&file, end as RawFd))
        .map_err(|errno| JailError::Runner {
            path: path.to_owned(),
            source: errno.into(),
        })
}

/// What a child needs before it can be something of its own.
pub(crate) struct Prepared<'a> {
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) entrance: &'a Entrance,
    /// Its end of the wire.
    pub(crate) control: RawFd,
}

pub(crate) fn cgroup_of(entrance: &Entrance) -> Option<BorrowedFd<'_>> {
    match entrance {
        Entrance::AtBirth(directory) => Some(directory.as_fd()),
        _ => None,
    }
}

/// What a function that does not return returns.
pub(crate) enum Never {}

/// Clones; `child` runs in the child, where nothing may be allocated, and returns what failed.
pub(crate) fn start(
    prepared: &Prepared<'_>,
    ours: OwnedFd,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(RawFd) -> Failed,
) -> Result<Child, JailError> {
    let namespaces = prepared.namespaces;
    // A pid namespace is entered by being born in it. The thread's own children are born in
    // ours again right after.
    let home = match &namespaces.pid {
        Some(pid) => {
            let home = rustix::fs::open(
                c"/proc/thread-self/ns/pid_for_children",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(JailError::errno("open our own pid namespace"))?;
            sys::setns(pid.as_raw_fd(), libc::CLONE_NEWPID)
                .map_err(JailError::system("join the pod's pid namespace"))?;
            Some(home)
        }
        None => None,
    };
    let flags = if namespaces.new & libc::CLONE_NEWPID != 0 {
        libc::CLONE_NEWPID as u64
    } else {
        0
    };
    // No handler of the supervisor's runs in the child before the kernel has reset them.
    let mask = sys::block_signals();
    // SAFETY: the child runs `child` alone, which keeps to system calls, and ends: its callers
    // here see to the one, `tell` to the other.
    let cloned = match unsafe { sys::clone(flags, cgroup) } {
        Ok(Cloned::Child) => {
            let failed = child(prepared.control);
            tell(prepared.control, failed)
        }
        other => other,
    };
    sys::set_signal_mask(&mask);
    if let Some(home) = home {
        sys::setns(home.as_raw_fd(), libc::CLONE_NEWPID)
            .map_err(JailError::system("come back from the pod's pid namespace"))?;
    }
    match cloned.map_err(JailError::system("make the container's process"))? {
        Cloned::Parent { pid, pidfd } => Ok(Child::new(pid, pidfd, Some(ours))),
        Cloned::Child => sys::exit(127),
    }
}

/// The supervisor's half of what the child waits for.
pub(crate) fn accompany(
    child: &Child,
    plan: &JailPlan,
    namespaces: &Namespaces,
    cgroup: &Cgroup,
    entrance: &Entrance,
) -> Result<(), JailError> {
    let control = child.control().ok_or(JailError::Silent {
        who: "the container's process",
    })?;
    if let Entrance::BySupervisor = entrance {
        heard(control)?;
        cgroup.add(child.pid())?;
        word(control)?;
    }
    if namespaces.user == Some(User::New) {
        heard(control)?;
        owners::map(child.pid(), &plan.uid_mappings, &plan.gid_mappings)?;
        word(control)?;
    }
    Ok(())
}

/// Waits until the child waits.
fn heard(control: BorrowedFd<'_>) -> Result<(), JailError> {
    match wire::next(control, true)? {
        Some(Packet::Waiting) => Ok(()),
        Some(Packet::Failed(failed)) => Err(in_words(failed)),
        _ => Err(JailError::Silent {
            who: "the container's process",
        }),
    }
}

/// The last thing that a child does: it tells which step failed, and ends.
pub(crate) fn tell(control: RawFd, failed: Failed) -> ! {
    let mut packet = [wire::FAILED; 10];
    packet[1..].copy_from_slice(&failed.encode());
    let _ = sys::write(control, &packet);
    sys::exit(125)
}

/// What is executed, and within which limits.
pub(crate) struct Execution<'a> {
    pub(crate) program: &'a CStr,
    /// The same, opened by the supervisor: root of a user namespace may not walk the path to it.
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) argv: &'a [*const c_char],
    pub(crate) limits: Option<crate::compile::Limits>,
    /// Whether descriptor 0 is to be its controlling terminal.
    pub(crate) terminal: bool,
}

/// From clone to exec, read from top to bottom. Nothing here allocates.
pub(crate) fn enter_and_execute(
    prepared: &Prepared<'_>,
    placed: &Placed,
    execution: &Execution<'_>,
) -> Failed {
    if let Err(failed) = enter_namespaces(prepared) {
        return failed;
    }
    let failed = |step: Step| move |error: std::io::Error| Failed::new(step, 0, &error);
    if let Some(limits) = &execution.limits
        && let Err(error) = limits.apply()
    {
        return failed(Step::Limits)(error);
    }
    // Descriptors last: until here errors are told over the number that the supervisor knew.
    if let Err(error) = placed.place() {
        return failed(Step::PlaceDescriptors)(error);
    }
    if execution.terminal
        && let Err(error) = sys::take_terminal()
    {
        return failed(Step::Terminal)(error);
    }
    if let Err(error) = descriptors::former_limit() {
        return failed(Step::Limits)(error);
    }
    sys::set_signal_mask(&sys::signal_set(&[]));
    let environment = [std::ptr::null()];
    let mut error = sys::exec(execution.program, execution.argv, &environment);
    if error.raw_os_error() == Some(libc::EACCES) {
        error = sys::exec_file(execution.file, execution.argv, &environment);
    }
    failed(Step::Execute)(error)
}

/// Into the cgroup and the namespaces.
pub(crate) fn enter_namespaces(prepared: &Prepared<'_>) -> Result<(), Failed> {
    let failed =
        |step: Step, index: usize| move |error: std::io::Error| Failed::new(step, index, &error);
    // The cgroup first: everything from here on is counted there, and a new cgroup namespace has
    // its root where the process is then.
    match prepared.entrance {
        Entrance::AtBirth(_) | Entrance::None => {}
        // "0" is the writer itself. Into `tasks`, by a process of one thread, it takes no lock that
        // waits for a grace period of all processors (5 to 10 ms); a number in `cgroup.procs` does.
        Entrance::Tasks(files) => {
            for (index, file) in files.iter().enumerate() {
                sys::write(file.as_raw_fd(), b"0").map_err(failed(Step::JoinCgroup, index))?;
            }
        }
        Entrance::BySupervisor => {
            wait_for_the_supervisor(prepared.control).map_err(failed(Step::JoinCgroup, 0))?
        }
    }
    let namespaces = prepared.namespaces;
    // Those of the pod. A user namespace comes after the others that can be joined without it,
    // because it takes the rights away that they need, and before those that need rights in it.
    let mut joined = 0_u32;
    for (index, (kind, namespace)) in namespaces.joined.iter().enumerate() {
        match sys::setns(namespace.as_raw_fd(), *kind) {
            Ok(()) => joined |= 1 << index,
            Err(error) if namespaces.user.is_none() => {
                return Err(failed(Step::JoinNamespace, index)(error));
            }
            Err(_) => {}
        }
    }
    match &namespaces.user {
        None => {}
        Some(User::Joined(namespace)) => {
            sys::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER)
                .map_err(failed(Step::JoinNamespace, 0))?;
        }
        Some(User::New) => {
            sys::unshare(libc::CLONE_NEWUSER).map_err(failed(Step::NewUserNamespace, 0))?;
            // Only who is outside may map ids that are not its own.
            wait_for_the_supervisor(prepared.control).map_err(failed(Step::MapIds, 0))?;
        }
    }
    if namespaces.user.is_some() {
        for (index, (kind, namespace)) in namespaces.joined.iter().enumerate() {
            if joined & (1 << index) == 0 {
                sys::setns(namespace.as_raw_fd(), *kind)
                    .map_err(failed(Step::JoinNamespace, index))?;
            }
        }
        // Otherwise an exec would take the rights in the namespace away.
        sys::set_groups(&[])
            .and_then(|()| sys::set_gid(0))
            .and_then(|()| sys::set_uid(0))
            .map_err(failed(Step::BecomeRoot, 0))?;
    }
    // New ones belong to the user namespace that the process is in now.
    sys::unshare(namespaces.new & !(libc::CLONE_NEWPID | libc::CLONE_NEWUSER))
        .map_err(failed(Step::NewNamespaces, 0))
}

fn wait_for_the_supervisor(control: RawFd) -> std::io::Result<()> {
    sys::write(control, &[wire::WAITING])?;
    match sys::read(control, &mut [0])? {
        0 => Err(std::io::Error::from_raw_os_error(libc::EPIPE)),
        _ => Ok(()),
    }
}

/// A user namespace.
#[derive(Debug)]
pub(crate) enum User {
    Joined(OwnedFd),
    New,
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::New, Self::New))
    }
}

/// The namespaces of a plan, opened.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW...` of those to be made.
    pub(crate) new: c_int,
    /// Those to be joined, but for the two below.
    joined: Vec<(c_int, OwnedFd)>,
    pid: Option<OwnedFd>,
    pub(crate) user: Option<User>,
}

impl Namespaces {
    /// Of a plan; the mount namespace is always a new one.
    pub(crate) fn prepare(plan: &JailPlan) -> Result<Self, JailError> {
        // Without it, mounts would be made in the host's view.
        let mut namespaces = Self::of_new(libc::CLONE_NEWNS);
        for namespace in &plan.namespaces {
            let flag = flag(namespace.kind);
            let Some(path) = &namespace.path else {
                if namespace.kind == Isolation::User {
                    if plan.uid_mappings.is_empty() || plan.gid_mappings.is_empty() {
                        return Err(JailError::NamespaceKind {
                            kind: namespace.kind,
                            reason: "a new one needs linux.uidMappings and linux.gidMappings",
                        });
                    }
                    namespaces.user = Some(User::New);
                }
                namespaces.new |= flag;
                continue;
            };
            let descriptor =
                rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| JailError::Namespace {
                        path: path.clone(),
                        source: errno.into(),
                    })?;
            match namespace.kind {
                Isolation::Mount => {
                    return Err(JailError::NamespaceKind {
                        kind: namespace.kind,
                        reason: "a wasm container always has its own, it cannot be joined by path",
                    });
                }
                Isolation::Pid => namespaces.pid = Some(descriptor),
                Isolation::User => namespaces.user = Some(User::Joined(descriptor)),
                _ => namespaces.joined.push((flag, descriptor)),
            }
        }
        Ok(namespaces)
    }

    /// Those of a container that is there, which `process` stands in, as far as its plan gives it other ones than the
    /// supervisor's; the mount namespace comes apart from the others, because the runner joins it itself.
    pub(crate) fn of_container(
        plan: &JailPlan,
        process: i32,
    ) -> Result<(Self, OwnedFd), JailError> {
        let open = |kind: Isolation| {
            let path = PathBuf::from(format!("/proc/{process}/ns/{}", file(kind)));
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(
                |errno| JailError::Namespace {
                    path,
                    source: errno.into(),
                },
            )
        };
        let mut namespaces = Self::default();
        for kind in plan.namespaces.iter().map(|namespace| namespace.kind) {
            match kind {
                Isolation::Mount => {}
                Isolation::Pid => namespaces.pid = Some(open(kind)?),
                Isolation::User => namespaces.user = Some(User::Joined(open(kind)?)),
                _ => namespaces.joined.push((flag(kind), open(kind)?)),
            }
        }
        Ok((namespaces, open(Isolation::Mount)?))
    }

    /// New ones alone.
    pub(crate) fn of_new(flags: c_int) -> Self {
        Self {
            new: flags,
            ..Self::default()
        }
    }
}

const fn flag(kind: Isolation) -> c_int {
    match kind {
        Isolation::Mount => libc::CLONE_NEWNS,
        Isolation::Pid => libc::CLONE_NEWPID,
        Isolation::Network => libc::CLONE_NEWNET,
        Isolation::Ipc => libc::CLONE_NEWIPC,
        Isolation::Uts => libc::CLONE_NEWUTS,
        Isolation::User => libc::CLONE_NEWUSER,
        Isolation::Cgroup => libc::CLONE_NEWCGROUP,
    }
}

/// Its name in `/proc/PID/ns`.
const fn file(kind: Isolation) -> &'static str {
    match kind {
        Isolation::Mount => "mnt",
        Isolation::Pid => "pid",
        Isolation::Network => "net",
        Isolation::Ipc => "ipc",
        Isolation::Uts => "uts",
        Isolation::User => "user",
        Isolation::Cgroup => "cgroup",
    }
}

/// Descriptors and the numbers they will have in the child. They are copied above all of those
/// numbers first, so that none is overwritten before its turn.
pub(crate) struct Placed {
    end: usize,
    pairs: Vec<(OwnedFd, RawFd)>,
}

impl Placed {
    /// For the numbers below `end`.
    pub(crate) fn new(end: usize) -> Self {
        Self {
            end,
            pairs: Vec::with_capacity(end),
        }
    }

    pub(crate) fn add(
        &mut self,
        descriptor: BorrowedFd<'_>,
        number: RawFd,
    ) -> Result<(), JailError> {
        let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, self.end as RawFd)
            .map_err(JailError::errno("copy a descriptor"))?;
        self.pairs.push((copy, number));
        Ok(())
    }

    fn place(&self) -> std::io::Result<()> {
        for (descriptor, number) in &self.pairs {
            sys::place(descriptor.as_raw_fd(), *number)?;
        }
        sys::close_from(self.end as RawFd, true)
    }
}

/// Takes over a descriptor that the supervisor placed, by its number.
///
/// # Safety
/// The number is one that the supervisor promises, and is taken once.
pub(crate) unsafe fn take(number: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(number) }
}
