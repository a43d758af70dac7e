//! What `/proc` tells of this machine and of its processes, as numbers.
use std::fs;

use anyhow::{Context, Result};

/// The processes that there are now.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn processes() -> Result<Vec<u32>> {
    Ok(fs::read_dir("/proc")
        .context("list /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Memory that the kernel could give to programs without swapping (`MemAvailable` of `/proc/meminfo`), in kB.
///
/// # Errors
/// When the kernel does not tell.
pub fn available_kb() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    number_after(&text, "MemAvailable:").context("find MemAvailable in /proc/meminfo")
}

/// The process above this one; `None` when it has ended.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    u32::try_from(field(pid, "status", "PPid:")?).ok()
}

/// How many threads it has; `None` when it has ended.
#[must_use]
pub fn threads(pid: u32) -> Option<u64> {
    field(pid, "status", "Threads:")
}

/// Its proportional set size (a page that n processes share counts 1/n for each), in kB; `None` when it has ended.
#[must_use]
pub fn pss_kb(pid: u32) -> Option<u64> {
    field(pid, "smaps_rollup", "Pss:")
}

/// The number behind `name` in a file of `/proc/PID`, in the unit of that file (sizes in kB); `None` when there is none, or
/// the process has ended.
#[must_use]
pub fn field(pid: u32, file: &str, name: &str) -> Option<u64> {
    number_after(
        &fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?,
        name,
    )
}

fn number_after(text: &str, field: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(field))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{available_kb, number_after};

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let rollup = "Rss:  100 kB\nPss_Dirty:  7 kB\nPss:  42 kB\n";
        assert_eq!(number_after(rollup, "Pss:"), Some(42));
        assert_eq!(number_after(rollup, "Swap:"), None);
    }

    #[test]
    fn the_kernel_tells_what_is_available() {
        assert!(available_kb().expect("read /proc/meminfo") > 0);
    }
}
