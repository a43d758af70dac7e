use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Whatever in this machine carries the tag of a run, one line each.
pub(crate) fn traces(tag: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(tag))
            .map(|line| format!("mount {line}")),
    );
    let own = std::process::id();
    for entry in fs::read_dir("/proc")
        .context("list the processes")?
        .flatten()
    {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let holds = |file: &str| {
            fs::read(entry.path().join(file)).is_ok_and(|bytes| {
                bytes
                    .windows(tag.len())
                    .any(|window| window == tag.as_bytes())
            })
        };
        if pid != own && (holds("cmdline") || holds("environ")) {
            found.push(format!("process {pid}"));
        }
    }
    for directory in ["/sys/class/net", "/run/netns", "/run/sampan"] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(tag) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    cgroups(Path::new("/sys/fs/cgroup"), tag, &mut found);
    let scratch = tools::cache_dir()?.join("run").join(tag);
    if scratch.exists() {
        found.push(scratch.display().to_string());
    }
    Ok(found)
}

fn cgroups(directory: &Path, tag: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(tag) {
                found.push(format!("cgroup {}", entry.path().display()));
            }
            cgroups(&entry.path(), tag, found);
        }
    }
}
