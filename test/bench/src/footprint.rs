//! What a contestant's pods cost: proportional set size, processes and threads, read from `/proc`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::proc;
use serde::Serialize;

/// Sums over a set of processes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Footprint {
    /// Proportional set size (a page that n processes share counts 1/n for each), in kB.
    pub(crate) pss_kb: u64,
    pub(crate) processes: u64,
    pub(crate) threads: u64,
}

impl Footprint {
    /// Of every process that belongs to the shim `program` of the containerd at `socket`: the shims, all that descend from
    /// them (guests, helpers, pause containers), and the processes `tasks` that containerd knows.
    pub(crate) fn of_side(program: &Path, socket: &Path, tasks: &[u32]) -> Result<Self> {
        let mut parents: HashMap<u32, u32> = HashMap::new();
        let mut members: HashSet<u32> = tasks.iter().copied().collect();
        for pid in proc::processes()? {
            // Processes come and go while we look; one that has gone has no share in anything.
            let Some(parent) = proc::parent(pid) else {
                continue;
            };
            parents.insert(pid, parent);
            if is_shim(pid, program, socket) {
                members.insert(pid);
            }
        }
        loop {
            let descendants: Vec<u32> = parents
                .iter()
                .filter(|(pid, parent)| members.contains(parent) && !members.contains(pid))
                .map(|(&pid, _)| pid)
                .collect();
            if descendants.is_empty() {
                break;
            }
            members.extend(descendants);
        }
        let mut sum = Self::default();
        for pid in members {
            let Some(pss) = proc::pss_kb(pid) else {
                continue;
            };
            sum.pss_kb += pss;
            sum.processes += 1;
            sum.threads += proc::threads(pid).unwrap_or_default();
        }
        Ok(sum)
    }
}

/// The processes of the shim `program` that serve the containerd at `socket`.
pub(crate) fn shims(program: &Path, socket: &Path) -> Result<Vec<u32>> {
    let all = proc::processes()?.into_iter();
    Ok(all.filter(|&pid| is_shim(pid, program, socket)).collect())
}

/// By the program that it runs, the name under which it was started (two shims may be one file), and containerd's
/// address, which every shim has on its command line or in its environment: other containerds on this machine may run the
/// same shims.
fn is_shim(pid: u32, program: &Path, socket: &Path) -> bool {
    let runs = std::fs::read_link(of(pid, "exe"));
    if !runs.is_ok_and(|runs| program.canonicalize().is_ok_and(|program| program == runs)) {
        return false;
    }
    let arguments = std::fs::read(of(pid, "cmdline")).unwrap_or_default();
    let name = arguments
        .split(|&byte| byte == 0)
        .next()
        .and_then(|first| Path::new(OsStr::from_bytes(first)).file_name());
    if name != program.file_name() {
        return false;
    }
    let names = |bytes: &[u8]| {
        let socket = socket.as_os_str().as_bytes();
        bytes.windows(socket.len()).any(|window| window == socket)
    };
    names(&arguments) || std::fs::read(of(pid, "environ")).is_ok_and(|bytes| names(&bytes))
}

fn of(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

#[cfg(test)]
mod tests {
    use super::{Footprint, shims};

    #[test]
    fn a_known_process_counts_without_any_shim() {
        let own = Footprint::of_side(
            std::path::Path::new("/no-such-shim"),
            std::path::Path::new("/nowhere"),
            &[std::process::id()],
        )
        .expect("read /proc");
        assert!(
            own.processes >= 1 && own.threads >= 1 && own.pss_kb > 0,
            "{own:?}"
        );
    }

    #[test]
    fn a_shim_is_known_by_program_name_and_containerd() {
        let own = std::env::current_exe().expect("this test");
        let nowhere = std::path::Path::new("/no/such/socket");
        assert!(shims(&own, nowhere).expect("read /proc").is_empty());
        // Its own path is on its command line, as a containerd's address is on a shim's.
        let found = shims(&own, &own).expect("read /proc");
        assert_eq!(found, [std::process::id()]);
    }
}
