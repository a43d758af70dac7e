//! Filters of system calls: the spec's profile ([`Filter::compile`]), and our own for the runner.
//!
//! Two filters are loaded one over the other; the kernel runs both and the stricter answer counts.

mod bpf;
mod own;
mod profile;

use serde::{Deserialize, Serialize};

pub use profile::SeccompError;

pub(crate) use own::{compiler, holder, runner};

/// A program for the kernel's seccomp machine, and the flags it is loaded with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Each instruction as one number, as `<linux/filter.h>` lays it out.
    program: Vec<u64>,
    flags: u32,
}

impl Filter {
    fn new(program: &[libc::sock_filter], flags: u32) -> Self {
        let program = program
            .iter()
            .map(|one| {
                u64::from(one.code)
                    | u64::from(one.jt) << 16
                    | u64::from(one.jf) << 24
                    | u64::from(one.k) << 32
            })
            .collect();
        Self { program, flags }
    }

    /// The instructions as the kernel takes them.
    pub(crate) fn instructions(&self) -> Vec<libc::sock_filter> {
        self.program
            .iter()
            .map(|one| libc::sock_filter {
                code: *one as u16,
                jt: (one >> 16) as u8,
                jf: (one >> 24) as u8,
                k: (one >> 32) as u32,
            })
            .collect()
    }

    /// Loads it for the calling thread, for good. No new privileges must be set, or the thread
    /// has `CAP_SYS_ADMIN`.
    pub(crate) fn load(&self) -> std::io::Result<()> {
        crate::sys::load_filter(&self.instructions(), self.flags)
    }
}
