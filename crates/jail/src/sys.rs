//! System calls that the libraries do not offer in the form needed here, one function each.
//!
//! None of them allocates: all may be called between clone and exec.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

// <linux/sched.h>; libc has these for glibc alone.
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

// <linux/mount.h>
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
pub(crate) const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// `struct mount_attr` of <linux/mount.h>.
#[repr(C)]
#[derive(Default)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// `struct clone_args` of <linux/sched.h>, in its third version (with `cgroup`).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// What [`clone`] returns, twice.
pub(crate) enum Cloned {
    /// In the parent.
    Parent { pid: i32, pidfd: OwnedFd },
    /// In the child.
    Child,
}

/// Makes a process with a copy of this one's memory (as fork does) and a descriptor for it.
///
/// # Safety
/// Other threads do not exist in the child: until it executes a program or ends, it must not
/// allocate nor take a lock.
pub(crate) unsafe fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the structure and `pidfd` live through the call; no stack is given and memory is
    // not shared, so the child goes on with its own copy of this stack. The rest is the caller's.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// Executes a program; returns only on failure.
pub(crate) fn exec(path: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> io::Error {
    debug_assert!(
        argv.last().is_some_and(|end| end.is_null())
            && envp.last().is_some_and(|end| end.is_null())
    );
    // SAFETY: both arrays end with a null pointer and hold C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes a program that is open; returns only on failure.
pub(crate) fn exec_file(
    file: BorrowedFd<'_>,
    argv: &[*const c_char],
    envp: &[*const c_char],
) -> io::Error {
    // SAFETY: as for `exec`; the empty path means the descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Ends this process at once, without running anything of it.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}

/// Sets attributes and propagation of a mount, given by a descriptor of its root.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attr: &MountAttr,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the empty path and the structure live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags as c_uint,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Makes a copy of a descriptor under a number that is given, kept open across exec.
pub(crate) fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: replaces a descriptor number of a process that is about to execute a program;
    // nothing in it uses the old one.
    check(c_long::from(unsafe { libc::dup2(from, to) }))?;
    Ok(())
}

/// Closes all descriptors from `first` on, now or when a program is executed.
pub(crate) fn close_from(first: RawFd, on_exec: bool) -> io::Result<()> {
    let flags = if on_exec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    // SAFETY: numbers alone; the callers are processes that use no descriptor above `first`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as c_uint, c_uint::MAX, flags) })?;
    Ok(())
}

/// `prctl` with numbers alone.
pub(crate) fn prctl(option: c_int, argument: usize) -> io::Result<i32> {
    let zero: usize = 0;
    // SAFETY: only options without pointers are used.
    Ok(check(c_long::from(unsafe {
        libc::prctl(option, argument, zero, zero, zero)
    }))? as i32)
}

/// Takes the calling thread into the namespace.
pub(crate) fn setns(namespace: RawFd, kind: c_int) -> io::Result<()> {
    // SAFETY: numbers alone.
    check(c_long::from(unsafe { libc::setns(namespace, kind) }))?;
    Ok(())
}

/// Gives the calling process new namespaces.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: numbers alone; called by processes of one thread.
    check(c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Real, effective and saved user id, of the calling thread: the processes here have one.
pub(crate) fn set_uid(id: u32) -> io::Result<()> {
    // SAFETY: numbers alone.
    check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) })?;
    Ok(())
}

/// Real, effective and saved group id, likewise.
pub(crate) fn set_gid(id: u32) -> io::Result<()> {
    // SAFETY: numbers alone.
    check(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) })?;
    Ok(())
}

/// Supplementary groups, likewise.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list lives through the call and its length is right.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    Ok(())
}

/// Empties the three capability sets of the thread.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    let none = [0_u32; 6];
    // SAFETY: header and data have the sizes that version 3 asks for and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })?;
    Ok(())
}

/// Drops every capability from the bounding set and clears the ambient set.
pub(crate) fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // Past the last one that this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other?,
        };
    }
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as usize,
    )?;
    Ok(())
}

/// Loads a seccomp filter for the calling thread.
pub(crate) fn load_filter(program: &[libc::sock_filter], flags: u32) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, of the given length, during the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })?;
    Ok(())
}

/// Moves the process's root to where it stands, and the old root on top of it.
pub(crate) fn pivot_root_here() -> io::Result<()> {
    // SAFETY: constant strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}

/// Takes a mount away; it goes when its last user is gone.
pub(crate) fn detach(path: &CStr) -> io::Result<()> {
    // SAFETY: a C string.
    check(c_long::from(unsafe {
        libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW)
    }))?;
    Ok(())
}

/// Cuts all mounts of this namespace off from those of the host.
pub(crate) fn make_mounts_private() -> io::Result<()> {
    let (root, null) = (c"/".as_ptr(), std::ptr::null::<c_char>());
    // SAFETY: C strings or null, as mount(2) allows for a change of propagation.
    check(c_long::from(unsafe {
        libc::mount(
            null,
            root,
            null,
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null::<c_void>(),
        )
    }))?;
    Ok(())
}

/// A limit of this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: `struct rlimit64` is two 64-bit numbers; the old value is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            limit.as_ptr(),
            std::ptr::null_mut::<u64>(),
        )
    })?;
    Ok(())
}

/// Begins a session whose controlling terminal is standard input.
pub(crate) fn take_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: the caller has just placed it, and nothing closes it during the call.
    let stdin = unsafe { BorrowedFd::borrow_raw(0) };
    rustix::process::ioctl_tiocsctty(stdin)?;
    Ok(())
}

/// A new pseudo terminal: its master, and the end for a process.
#[cfg(feature = "native")]
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let master = rustix::fs::open(
        c"/dev/ptmx",
        rustix::fs::OFlags::from_bits_retain(flags as u32),
        rustix::fs::Mode::empty(),
    )?;
    let locked: c_int = 0;
    // SAFETY: the first reads one number, which lives through the call; the second takes flags and makes a descriptor
    // that nobody else knows of. By the master and not by a name: /dev/pts may be another instance.
    let slave = unsafe {
        check(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const locked).into())?;
        let peer = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags);
        OwnedFd::from_raw_fd(check(peer.into())? as RawFd)
    };
    Ok((master, slave))
}

/// Tells a terminal its size.
#[cfg(feature = "native")]
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the structure lives through the call.
    let set = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    check(set.into())?;
    Ok(())
}

/// Sends a signal through a descriptor: never to another process that got the same number.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<c_void>(),
            0,
        )
    })?;
    Ok(())
}

/// Blocks every signal; returns what was blocked before.
pub(crate) fn block_signals() -> libc::sigset_t {
    // SAFETY: a set of signals is plain memory, filled by these functions.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut old);
        old
    }
}

/// Blocks those signals alone that are in the set.
pub(crate) fn set_signal_mask(mask: &libc::sigset_t) {
    // SAFETY: the set lives through the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// A set of signals.
pub(crate) fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a set of signals is plain memory, filled by these functions.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Whether one of the signals, which are blocked, waits for the calling thread or its process.
pub(crate) fn is_pending(signals: &[c_int]) -> bool {
    // SAFETY: a set of signals is plain memory, filled by these functions.
    unsafe {
        let mut pending = std::mem::zeroed();
        libc::sigpending(&raw mut pending) == 0
            && signals
                .iter()
                .any(|signal| libc::sigismember(&raw const pending, *signal) == 1)
    }
}

/// Waits for one of the signals, which must be blocked.
pub(crate) fn wait_for_signal(set: &libc::sigset_t) -> io::Result<i32> {
    // SAFETY: the set lives through the call; no siginfo is asked for.
    let signal = unsafe { libc::sigwaitinfo(set, std::ptr::null_mut()) };
    Ok(check(c_long::from(signal))? as i32)
}

/// Sets what a signal does.
pub(crate) fn set_handler(
    signal: c_int,
    handler: libc::sighandler_t,
    flags: c_int,
) -> io::Result<()> {
    // SAFETY: the structure is filled before use; the handlers given here are `SIG_IGN`, `SIG_DFL`,
    // or a function that calls `_exit`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigemptyset(&raw mut action.sa_mask);
        check(c_long::from(libc::sigaction(
            signal,
            &raw const action,
            std::ptr::null_mut(),
        )))?;
    }
    Ok(())
}

/// Writes to a descriptor that is a number here.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes live through the call.
    Ok(check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as c_long)? as usize)
}

/// Reads from a descriptor that is a number here.
pub(crate) fn read(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer lives through the call and its length is right.
    Ok(
        check(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) } as c_long)?
            as usize,
    )
}

/// Whether the calling thread is the first of its process, by which the kernel counts a child's
/// parent: `PR_SET_PDEATHSIG` fires at the end of the thread, not of the process.
pub(crate) fn on_main_thread() -> bool {
    // SAFETY: both always succeed.
    unsafe { libc::getpid() == libc::gettid() }
}

/// Takes one capability out of the thread's permitted and effective sets.
#[cfg(feature = "native")]
pub(crate) fn drop_effective_capability(capability: u32) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`
    const VERSION: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION, 0];
    // Effective, permitted, inheritable; the lower 32 first, then the upper.
    let mut sets = [0_u32; 6];
    // SAFETY: header and data have the sizes that version 3 asks for and live through the calls.
    unsafe {
        check(libc::syscall(
            libc::SYS_capget,
            header.as_ptr(),
            sets.as_mut_ptr(),
        ))?;
        let (at, bit) = (3 * (capability / 32) as usize, 1 << (capability % 32));
        sets[at] &= !bit;
        sets[at + 1] &= !bit;
        check(libc::syscall(
            libc::SYS_capset,
            header.as_ptr(),
            sets.as_ptr(),
        ))?;
    }
    Ok(())
}
