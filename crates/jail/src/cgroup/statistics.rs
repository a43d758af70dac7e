//! What a container has used, as the kernel counts it.
//!
//! Plain numbers under the kernel's own names: what containerd wants to see of them, and under
//! which names, is the shim's business.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::JailError;

/// The counts of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stats {
    /// Version 1 of cgroups: containerd's `io.containerd.cgroups.v1.Metrics`.
    V1(Box<StatsV1>),
    /// Version 2: `io.containerd.cgroups.v2.Metrics`.
    V2(Box<StatsV2>),
}

/// A usage with its limit, as version 1 counts memory, memory with swap, and kernel memory. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageV1 {
    /// `limit_in_bytes`; a huge number is no limit.
    pub limit: u64,
    /// `usage_in_bytes`.
    pub usage: u64,
    /// `max_usage_in_bytes`.
    pub max: u64,
    /// `failcnt`: how often the limit was in the way.
    pub failures: u64,
}

/// Of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoCount {
    /// Major number of the device.
    pub major: u64,
    /// Minor number of the device.
    pub minor: u64,
    /// Version 1: `Read`, `Write`, ...; version 2: `rbytes`, `wbytes`, `rios`, `wios`, ...
    pub operation: String,
    /// Bytes or operations.
    pub value: u64,
}

/// Version 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsV1 {
    /// `cpuacct.usage`, nanoseconds.
    pub cpu_total: u64,
    /// `cpuacct.usage_sys`, nanoseconds.
    pub cpu_kernel: u64,
    /// `cpuacct.usage_user`, nanoseconds.
    pub cpu_user: u64,
    /// `cpuacct.usage_percpu`, nanoseconds.
    pub cpu_each: Vec<u64>,
    /// `cpu.stat`: `nr_periods`, `nr_throttled`, `throttled_time` (nanoseconds).
    pub throttling: BTreeMap<String, u64>,
    /// `memory.stat`, bytes and events.
    pub memory: BTreeMap<String, u64>,
    /// Memory.
    pub memory_usage: UsageV1,
    /// Memory and swap (`memsw`); zeros where the kernel does not count swap.
    pub swap_usage: UsageV1,
    /// Kernel memory (`kmem`).
    pub kernel_usage: UsageV1,
    /// Kernel memory of TCP (`kmem.tcp`).
    pub tcp_usage: UsageV1,
    /// `memory.oom_control`: `oom_kill_disable`, `under_oom`, `oom_kill`.
    pub oom: BTreeMap<String, u64>,
    /// `pids.current`.
    pub pids: u64,
    /// `pids.max`; 0 is no limit, as containerd has it.
    pub pids_limit: u64,
    /// `blkio.throttle.io_service_bytes_recursive`.
    pub io_bytes: Vec<IoCount>,
    /// `blkio.throttle.io_serviced_recursive`.
    pub io_operations: Vec<IoCount>,
}

/// Version 2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatsV2 {
    /// `cpu.stat`: `usage_usec`, `user_usec`, `system_usec`, `nr_periods`, ... microseconds.
    pub cpu: BTreeMap<String, u64>,
    /// `memory.stat`, bytes and events.
    pub memory: BTreeMap<String, u64>,
    /// `memory.events`: `oom`, `oom_kill`, `max`, ...
    pub memory_events: BTreeMap<String, u64>,
    /// `memory.current`, bytes.
    pub memory_usage: u64,
    /// `memory.max`, bytes; `u64::MAX` is no limit.
    pub memory_limit: u64,
    /// `memory.peak`, bytes.
    pub memory_peak: u64,
    /// `memory.swap.current`, bytes.
    pub swap_usage: u64,
    /// `memory.swap.max`, bytes; `u64::MAX` is no limit.
    pub swap_limit: u64,
    /// `pids.current`.
    pub pids: u64,
    /// `pids.max`; 0 is no limit, as containerd has it.
    pub pids_limit: u64,
    /// `io.stat`.
    pub io: Vec<IoCount>,
}

pub(super) fn v1(directories: &[(Vec<String>, PathBuf)]) -> Result<StatsV1, JailError> {
    let mut stats = StatsV1::default();
    for (controllers, at) in directories {
        for controller in controllers {
            match controller.as_str() {
                "cpuacct" => {
                    stats.cpu_total = number(at, "cpuacct.usage")?;
                    stats.cpu_kernel = number(at, "cpuacct.usage_sys")?;
                    stats.cpu_user = number(at, "cpuacct.usage_user")?;
                    stats.cpu_each = text(at, "cpuacct.usage_percpu")?
                        .split_whitespace()
                        .filter_map(|word| word.parse().ok())
                        .collect();
                }
                "cpu" => stats.throttling = table(at, "cpu.stat")?,
                "memory" => {
                    stats.memory = table(at, "memory.stat")?;
                    stats.oom = table(at, "memory.oom_control")?;
                    stats.memory_usage = usage(at, "memory")?;
                    stats.swap_usage = usage(at, "memory.memsw")?;
                    stats.kernel_usage = usage(at, "memory.kmem")?;
                    stats.tcp_usage = usage(at, "memory.kmem.tcp")?;
                }
                "pids" => {
                    stats.pids = number(at, "pids.current")?;
                    stats.pids_limit = limit(at, "pids.max", 0)?;
                }
                "blkio" => {
                    stats.io_bytes = io_v1(&text(at, "blkio.throttle.io_service_bytes_recursive")?);
                    stats.io_operations = io_v1(&text(at, "blkio.throttle.io_serviced_recursive")?);
                }
                _ => {}
            }
        }
    }
    Ok(stats)
}

pub(super) fn v2(at: &Path) -> Result<StatsV2, JailError> {
    Ok(StatsV2 {
        cpu: table(at, "cpu.stat")?,
        memory: table(at, "memory.stat")?,
        memory_events: table(at, "memory.events")?,
        memory_usage: number(at, "memory.current")?,
        memory_limit: limit(at, "memory.max", u64::MAX)?,
        memory_peak: number(at, "memory.peak")?,
        swap_usage: number(at, "memory.swap.current")?,
        swap_limit: limit(at, "memory.swap.max", u64::MAX)?,
        pids: number(at, "pids.current")?,
        pids_limit: limit(at, "pids.max", 0)?,
        io: io_v2(&text(at, "io.stat")?),
    })
}

/// The file's text; empty where there is none: the controller is off, or the kernel older.
fn text(at: &Path, file: &str) -> Result<String, JailError> {
    let path = at.join(file);
    match fs::read_to_string(&path) {
        Err(error) if super::gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(String::new())
        }
        read => read.map_err(|source| JailError::Cgroup {
            attempt: "read",
            path,
            source,
        }),
    }
}

pub(super) fn number(at: &Path, file: &str) -> Result<u64, JailError> {
    Ok(text(at, file)?.trim().parse().unwrap_or(0))
}

pub(super) fn limit(at: &Path, file: &str, none: u64) -> Result<u64, JailError> {
    Ok(text(at, file)?.trim().parse().unwrap_or(none))
}

fn usage(at: &Path, prefix: &str) -> Result<UsageV1, JailError> {
    Ok(UsageV1 {
        limit: number(at, &format!("{prefix}.limit_in_bytes"))?,
        usage: number(at, &format!("{prefix}.usage_in_bytes"))?,
        max: number(at, &format!("{prefix}.max_usage_in_bytes"))?,
        failures: number(at, &format!("{prefix}.failcnt"))?,
    })
}

fn table(at: &Path, file: &str) -> Result<BTreeMap<String, u64>, JailError> {
    Ok(pairs(&text(at, file)?))
}

fn pairs(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// `8:0 Read 4096`, a line for each operation; the last line is the sum and has no device.
fn io_v1(text: &str) -> Vec<IoCount> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            Some(IoCount {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                operation: words.next()?.to_owned(),
                value: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

/// `8:0 rbytes=4096 wbytes=0 ...`, a line for each device.
fn io_v2(text: &str) -> Vec<IoCount> {
    let mut counts = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((Ok(major), Ok(minor))) = words
            .next()
            .and_then(|device| device.split_once(':'))
            .map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (operation, value) in words.filter_map(|word| word.split_once('=')) {
            if let Ok(value) = value.parse() {
                counts.push(IoCount {
                    major,
                    minor,
                    operation: operation.to_owned(),
                    value,
                });
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_devices() {
        let one = |operation: &str, value| IoCount {
            major: 8,
            minor: 0,
            operation: operation.to_owned(),
            value,
        };
        assert_eq!(
            io_v1("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n"),
            [one("Read", 4096), one("Write", 1)]
        );
        assert_eq!(
            io_v2("8:0 rbytes=4096 wbytes=1\nnonsense\n"),
            [one("rbytes", 4096), one("wbytes", 1)]
        );
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(
            pairs("a 1\nb x\n\nc 3\n"),
            BTreeMap::from([("a".to_owned(), 1), ("c".to_owned(), 3)])
        );
    }
}
