//! `linux.resources` as files of a cgroup (OCI runtime-spec, "Control groups").

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, LinuxThrottleDevice};

use super::write;
use crate::error::JailError;

pub(super) fn v1(
    directories: &[(Vec<String>, PathBuf)],
    resources: &LinuxResources,
) -> Result<(), JailError> {
    // A controller that the machine does not have is an error where a limit needs it.
    let put = |controller: &str, file: &str, value: String| {
        let directory = directories
            .iter()
            .find(|(controllers, _)| controllers.iter().any(|one| one == controller))
            .map_or_else(
                || Path::new("/sys/fs/cgroup").join(controller),
                |(_, directory)| directory.clone(),
            );
        write(&directory.join(file), &value)
    };
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|limit| *limit != 0);
        let swap = memory.swap().filter(|limit| *limit != 0);
        let limits = || {
            limit.map_or(Ok(()), |limit| {
                put("memory", "memory.limit_in_bytes", limit.to_string())
            })
        };
        let swaps = || match swap {
            // The file is there only where the kernel counts swap.
            Some(swap) => match put("memory", "memory.memsw.limit_in_bytes", swap.to_string()) {
                Err(JailError::Cgroup { source, .. }) if super::gone(&source) => Ok(()),
                other => other,
            },
            None => Ok(()),
        };
        // Memory may never exceed memory and swap: which of the two is first depends on the
        // direction.
        limits()
            .and_then(|()| swaps())
            .or_else(|_| swaps().and_then(|()| limits()))?;
        if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
            put(
                "memory",
                "memory.soft_limit_in_bytes",
                reservation.to_string(),
            )?;
        }
        if let Some(swappiness) = memory.swappiness().filter(|value| *value <= 100) {
            put("memory", "memory.swappiness", swappiness.to_string())?;
        }
        if memory.disable_oom_killer() == Some(true) {
            put("memory", "memory.oom_control", "1".to_owned())?;
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
            put("cpu", "cpu.shares", shares.to_string())?;
        }
        if let Some(period) = cpu.period().filter(|value| *value != 0) {
            put("cpu", "cpu.cfs_period_us", period.to_string())?;
        }
        if let Some(quota) = cpu.quota().filter(|value| *value != 0) {
            put("cpu", "cpu.cfs_quota_us", quota.to_string())?;
        }
        if let Some(burst) = cpu.burst() {
            put("cpu", "cpu.cfs_burst_us", burst.to_string())?;
        }
        if let Some(period) = cpu.realtime_period().filter(|value| *value != 0) {
            put("cpu", "cpu.rt_period_us", period.to_string())?;
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|value| *value != 0) {
            put("cpu", "cpu.rt_runtime_us", runtime.to_string())?;
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                put("cpuset", file, value.clone())?;
            }
        }
    }
    if let Some(pids) = resources.pids() {
        put("pids", "pids.max", pids_max(pids.limit()))?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        put(
            "hugetlb",
            &format!("hugetlb.{}.limit_in_bytes", page.page_size()),
            page.limit().to_string(),
        )?;
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight().filter(|value| *value != 0) {
            put("blkio", "blkio.weight", weight.to_string())?;
        }
        for (file, devices) in [
            (
                "blkio.throttle.read_bps_device",
                io.throttle_read_bps_device(),
            ),
            (
                "blkio.throttle.write_bps_device",
                io.throttle_write_bps_device(),
            ),
            (
                "blkio.throttle.read_iops_device",
                io.throttle_read_iops_device(),
            ),
            (
                "blkio.throttle.write_iops_device",
                io.throttle_write_iops_device(),
            ),
        ] {
            for device in devices.iter().flatten() {
                put(
                    "blkio",
                    file,
                    format!("{}:{} {}", device.major(), device.minor(), device.rate()),
                )?;
            }
        }
    }
    Ok(())
}

pub(super) fn v2(directory: &Path, resources: &LinuxResources) -> Result<(), JailError> {
    let put = |file: &str, value: String| write(&directory.join(file), &value);
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            put("memory.max", or_max(limit))?;
        }
        if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
            put("memory.low", or_max(reservation))?;
        }
        // Version 1 counts memory and swap together, version 2 swap alone.
        match (limit, memory.swap().filter(|swap| *swap != 0)) {
            (_, Some(-1)) => put("memory.swap.max", "max".to_owned())?,
            (Some(limit), Some(swap)) if swap >= limit => {
                match put("memory.swap.max", (swap - limit).to_string()) {
                    Err(JailError::Cgroup { source, .. }) if super::gone(&source) => {}
                    other => other?,
                }
            }
            _ => {}
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
            put("cpu.weight", weight(shares).to_string())?;
        }
        let period = cpu.period().filter(|value| *value != 0);
        match (cpu.quota().filter(|value| *value != 0), period) {
            (Some(quota), period) => put(
                "cpu.max",
                format!("{} {}", or_max(quota), period.unwrap_or(100_000)),
            )?,
            (None, Some(period)) => put("cpu.max", format!("max {period}"))?,
            (None, None) => {}
        }
        if let Some(burst) = cpu.burst() {
            put("cpu.max.burst", burst.to_string())?;
        }
        if let Some(idle) = cpu.idle() {
            put("cpu.idle", idle.to_string())?;
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                put(file, value.clone())?;
            }
        }
    }
    if let Some(pids) = resources.pids() {
        put("pids.max", pids_max(pids.limit()))?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        put(
            &format!("hugetlb.{}.max", page.page_size()),
            page.limit().to_string(),
        )?;
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight().filter(|value| *value != 0) {
            let (file, weight) = match directory.join("io.bfq.weight").exists() {
                true => ("io.bfq.weight", u64::from(weight)),
                // 10 to 1000 as 1 to 10000, as runc has it.
                false => (
                    "io.weight",
                    1 + (u64::from(weight).saturating_sub(10) * 9999) / 990,
                ),
            };
            put(file, weight.to_string())?;
        }
        type Devices = Option<Vec<LinuxThrottleDevice>>;
        let all: [(&str, &Devices); 4] = [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ];
        for (key, devices) in all {
            for device in devices.iter().flatten() {
                put(
                    "io.max",
                    format!(
                        "{}:{} {key}={}",
                        device.major(),
                        device.minor(),
                        device.rate()
                    ),
                )?;
            }
        }
    }
    for (file, value) in resources.unified().iter().flatten() {
        // A name of a file there, and of nothing else.
        if file.contains('/') || !fs::exists(directory.join(file)).unwrap_or(false) {
            return Err(JailError::Cgroup {
                attempt: "write to",
                path: directory.join(file),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        // Several lines are several writes: the kernel takes one at a time.
        for line in value.lines() {
            put(file, line.to_owned())?;
        }
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// Zero or less is no limit, as runc has it.
fn pids_max(limit: i64) -> String {
    if limit <= 0 {
        "max".to_owned()
    } else {
        limit.to_string()
    }
}

/// `cpu.shares` (2 to 262144) as `cpu.weight` (1 to 10000), as Kubernetes and runc convert it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [
            (2, 1),
            (1024, 39),
            (262_144, 10_000),
            (1, 1),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn no_limit_is_max() {
        assert_eq!((or_max(-1).as_str(), or_max(7).as_str()), ("max", "7"));
        assert_eq!(
            (
                pids_max(0).as_str(),
                pids_max(-1).as_str(),
                pids_max(9).as_str()
            ),
            ("max", "max", "9")
        );
    }

    #[test]
    fn version_2_is_written_as_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for file in [
            "memory.max",
            "memory.swap.max",
            "cpu.weight",
            "cpu.max",
            "pids.max",
            "memory.high",
        ] {
            fs::write(dir.path().join(file), "").expect("made");
        }
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory": {"limit": 100, "swap": 150}, "cpu": {"shares": 1024, "quota": 5000},
                "pids": {"limit": 5}, "unified": {"memory.high": "90"}}"#,
        )
        .expect("resources");
        v2(dir.path(), &resources).expect("written");
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).expect("readable");
        assert_eq!(read("memory.max"), "100");
        assert_eq!(read("memory.swap.max"), "50");
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(read("cpu.max"), "5000 100000");
        assert_eq!(read("pids.max"), "5");
        assert_eq!(read("memory.high"), "90");
        let wrong: LinuxResources =
            serde_json::from_str(r#"{"unified": {"../x": "1"}}"#).expect("resources");
        v2(dir.path(), &wrong).expect_err("no such file");
    }
}
