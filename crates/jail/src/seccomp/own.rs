//! Our own filters: what the runner, the compile helper and the pod's holder need, and no more.
//!
//! What is not named fails with EPERM. What does not exist yet, and newer forms that C libraries
//! fall back from, fails with ENOSYS. What no program of ours would ever ask for, and an attacker
//! would first, kills the process.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, c_long};

use syscalls::Sysno;

use super::Filter;
use super::bpf::{self, Condition, Rules, Table, Test};
use super::profile::{FOREIGN, OWN, errno};

/// Memory, threads, time, signals: what the C library, tokio and wasmtime do without asking
/// anything of the world.
const COMPUTE: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    // How musl raises SIGABRT.
    libc::SYS_tkill,
    libc::SYS_uname,
];

/// Descriptors that are there already.
const DESCRIPTORS: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// WASI's files, below the preopened directories, and the jail holds nothing else.
const FILES: &[c_long] = &[
    libc::SYS_chdir,
    libc::SYS_copy_file_range,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_flock,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// WASI's sockets, in the pod's network namespace. `socket` itself has a rule of its own.
const NETWORK: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// The older forms that x86_64 still has and its C libraries still use.
#[cfg(target_arch = "x86_64")]
const OLDER_COMPUTE: &[c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_time,
];
#[cfg(target_arch = "x86_64")]
const OLDER_FILES: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_access,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_COMPUTE: &[c_long] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_FILES: &[c_long] = &[libc::SYS_accept];

/// Newer forms: whoever tries them knows an older one.
const ABSENT: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_epoll_pwait2,
    Sysno::fchmodat2 as c_long,
    libc::SYS_futex_waitv,
    libc::SYS_io_uring_setup,
    libc::SYS_landlock_create_ruleset,
];

/// No way but an attack leads here.
const DEADLY: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kcmp,
    Sysno::kexec_file_load as c_long,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// For the runner with a guest in it. `more_filters`: the spec's is loaded after this one.
pub(crate) fn runner(more_filters: bool) -> Filter {
    let mut rules = Own::new();
    rules
        .allow(COMPUTE)
        .allow(OLDER_COMPUTE)
        .allow(DESCRIPTORS)
        .allow(FILES)
        .allow(OLDER_FILES)
        .allow(NETWORK);
    rules.threads().terminal_questions().limits().names();
    // Inet and unix (a closed connection to a name service; there is nobody in the jail), and
    // nothing that configures the network.
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        rules.only(libc::SYS_socket, vec![equal(0, family as u64)]);
    }
    rules.only(libc::SYS_socketpair, vec![equal(0, libc::AF_UNIX as u64)]);
    if more_filters {
        rules.only(
            libc::SYS_seccomp,
            vec![
                equal(0, libc::SECCOMP_SET_MODE_FILTER.into()),
                // No listener: that would be a way to answer for others.
                Condition {
                    argument: 1,
                    test: Test::Masked(NEW_LISTENER),
                    value: 0,
                },
            ],
        );
    }
    rules.filter()
}

/// For the compile helper: computes, reads one file and writes another.
pub(crate) fn compiler() -> Filter {
    let mut rules = Own::new();
    rules.allow(COMPUTE).allow(OLDER_COMPUTE).allow(DESCRIPTORS);
    rules.allow(&[
        libc::SYS_fadvise64,
        libc::SYS_fallocate,
        libc::SYS_ftruncate,
        libc::SYS_getcwd,
        libc::SYS_newfstatat,
        libc::SYS_statx,
    ]);
    // Rust's standard library looks for the number of processors there, and for backtraces; what
    // it finds is an empty root.
    rules.allow(&[libc::SYS_openat, libc::SYS_readlinkat]);
    rules.threads().terminal_questions().limits().names();
    rules.filter()
}

/// For the pod's holder: it waits.
pub(crate) fn holder() -> Filter {
    let mut rules = Own::new();
    rules.allow(&[
        libc::SYS_exit,
        libc::SYS_exit_group,
        // It gives the supervisor's memory back.
        libc::SYS_munmap,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_write,
        libc::SYS_sendto,
        libc::SYS_close,
        libc::SYS_close_range,
    ]);
    rules.filter()
}

// <linux/seccomp.h> and <asm-generic/ioctls.h>: libc has another type for these in each C library.
const NEW_LISTENER: u64 = 1 << 3;
const TCGETS: u64 = 0x5401;
const TIOCGWINSZ: u64 = 0x5413;
const FIONREAD: u64 = 0x541B;
const FIONBIO: u64 = 0x5421;
/// <linux/fs.h>: which pages of its own memory a process has written to, by which the engine's
/// pool cleans up after a request. On a descriptor that is open since before the jail.
const PAGEMAP_SCAN: u64 = 0xC060_6610;

fn equal(argument: u8, value: u64) -> Condition {
    Condition {
        argument,
        test: Test::Equal,
        value,
    }
}

/// Rules in the making.
struct Own(Vec<(u32, Rules)>);

impl Own {
    fn new() -> Self {
        let mut rules = Self(Vec::with_capacity(256));
        for call in ABSENT {
            rules.rules(*call).otherwise = Some(errno(libc::ENOSYS));
        }
        for call in DEADLY {
            rules.rules(*call).otherwise = Some(SECCOMP_RET_KILL_PROCESS);
        }
        rules
    }

    fn rules(&mut self, call: c_long) -> &mut Rules {
        let number = call as u32;
        let at = match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (number, Rules::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    fn allow(&mut self, calls: &[c_long]) -> &mut Self {
        for call in calls {
            self.rules(*call).otherwise = Some(SECCOMP_RET_ALLOW);
        }
        self
    }

    fn only(&mut self, call: c_long, conditions: Vec<Condition>) -> &mut Self {
        self.rules(call)
            .conditional
            .push((conditions, SECCOMP_RET_ALLOW));
        self
    }

    /// New threads, but neither processes nor namespaces.
    fn threads(&mut self) -> &mut Self {
        let thread = libc::CLONE_THREAD | libc::CLONE_VM;
        let namespaces = libc::CLONE_NEWNS
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        let mask = (thread | namespaces) as u32;
        let condition = Condition {
            argument: 0,
            test: Test::Masked(mask.into()),
            value: thread as u64,
        };
        self.only(libc::SYS_clone, vec![condition])
    }

    /// `isatty`, the number of bytes that wait, non-blocking mode; and written pages.
    fn terminal_questions(&mut self) -> &mut Self {
        for request in [TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, PAGEMAP_SCAN] {
            // The kernel looks at 32 bits; C libraries extend the sign or do not.
            self.only(
                libc::SYS_ioctl,
                vec![Condition {
                    argument: 1,
                    test: Test::Masked(u32::MAX.into()),
                    value: request & u64::from(u32::MAX),
                }],
            );
        }
        self
    }

    /// Reading limits, of this process alone.
    fn limits(&mut self) -> &mut Self {
        self.only(libc::SYS_prlimit64, vec![equal(2, 0)])
    }

    /// Names of threads and of mappings.
    fn names(&mut self) -> &mut Self {
        for option in [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA] {
            self.only(libc::SYS_prctl, vec![equal(0, option as u64)]);
        }
        self
    }

    fn filter(self) -> Filter {
        // The newest call that was looked at when this was written: mseal and its time.
        let beyond = Some((Sysno::fchmodat2 as u32, errno(libc::ENOSYS)));
        let table = Table {
            architecture: OWN,
            calls: self.0,
            default: errno(libc::EPERM),
            beyond,
        };
        Filter::new(&bpf::assemble(&[table], FOREIGN), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bpf::machine::run;
    use super::*;

    fn answer(filter: &Filter, call: c_long, arguments: [u64; 6]) -> u32 {
        run(&filter.instructions(), OWN, call as u32, arguments).0
    }

    #[test]
    fn the_runner_may_make_threads_and_sockets_but_nothing_dangerous() {
        let filter = runner(false);
        let thread =
            (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_FS) as u64;
        assert_eq!(
            answer(&filter, libc::SYS_clone, [thread, 0, 0, 0, 0, 0]),
            SECCOMP_RET_ALLOW
        );
        assert_eq!(
            answer(
                &filter,
                libc::SYS_clone,
                [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]
            ),
            errno(libc::EPERM)
        );
        let with_namespace = thread | libc::CLONE_NEWUSER as u64;
        assert_eq!(
            answer(&filter, libc::SYS_clone, [with_namespace, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(
            answer(&filter, libc::SYS_clone3, [0; 6]),
            errno(libc::ENOSYS)
        );
        let socket =
            |family: i32| answer(&filter, libc::SYS_socket, [family as u64, 0, 0, 0, 0, 0]);
        assert_eq!(socket(libc::AF_INET6), SECCOMP_RET_ALLOW);
        assert_eq!(socket(libc::AF_NETLINK), errno(libc::EPERM));
        assert_eq!(socket(libc::AF_PACKET), errno(libc::EPERM));
        for deadly in DEADLY {
            assert_eq!(
                answer(&filter, *deadly, [0; 6]),
                SECCOMP_RET_KILL_PROCESS,
                "{deadly}"
            );
        }
        assert_eq!(
            answer(&filter, libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(
            answer(&filter, libc::SYS_prlimit64, [0, 7, 1, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(answer(&filter, 1000, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn another_filter_may_follow_where_one_will() {
        let filter = runner(true);
        assert_eq!(
            answer(&filter, libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]),
            SECCOMP_RET_ALLOW
        );
        let listener = NEW_LISTENER;
        assert_eq!(
            answer(&filter, libc::SYS_seccomp, [1, listener, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
    }

    #[test]
    fn the_compiler_has_no_network_and_makes_no_files() {
        let filter = compiler();
        assert_eq!(answer(&filter, libc::SYS_read, [0; 6]), SECCOMP_RET_ALLOW);
        assert_eq!(
            answer(&filter, libc::SYS_socket, [2, 0, 0, 0, 0, 0]),
            errno(libc::EPERM)
        );
        assert_eq!(
            answer(&filter, libc::SYS_unlinkat, [0; 6]),
            errno(libc::EPERM)
        );
    }
}
