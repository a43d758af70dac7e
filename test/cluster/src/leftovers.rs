//! What pods have left on the node when they are gone.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use harness::{Containerd, Leftovers, until};

/// How long the kubelet may take to clean up after the last pod. Once a minute it collects: it stops sandboxes that have died
/// by themselves, and has containerd undo what that keeps of ended ones, mounts of theirs among it. What fails while
/// containerd is away it does the next time.
const DEADLINE: Duration = Duration::from_secs(150);
/// The cgroups that are the kubelet's and stay.
const KEPT: [&str; 3] = ["kubepods", "besteffort", "burstable"];

/// Waits until nothing is left of any container that containerd has told of, and no directory of a pod.
pub(crate) async fn assert_none(containerd: &Containerd, pods: &Path, own: &[u32]) -> Result<()> {
    for id in containers(&containerd.log()) {
        containerd.remember("k8s.io", &id);
    }
    let clean = async || {
        let (left, directories) = find(containerd, pods, own);
        Ok((left.is_empty() && directories.is_empty()).then_some(()))
    };
    let Err(error) = until("nothing to be left on the node", DEADLINE, clean).await else {
        return Ok(());
    };
    let (left, directories) = find(containerd, pods, own);
    let directories: Vec<_> = directories
        .iter()
        .map(|path| format!("pod {}", path.display()))
        .collect();
    bail!("{error}:\n{left}{}", directories.join("\n"))
}

fn find(containerd: &Containerd, pods: &Path, own: &[u32]) -> (Leftovers, Vec<PathBuf>) {
    let mut left = containerd.leftovers();
    left.processes.retain(|line| {
        let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
        pid.is_none_or(|pid| !own.contains(&pid))
    });
    let root = pods.parent().unwrap_or(pods);
    left.mounts.retain(|mount| mount != root);
    left.cgroups.retain(|cgroup| {
        cgroup
            .file_name()
            .is_none_or(|name| !KEPT.iter().any(|kept| name == *kept))
    });
    let directories = fs::read_dir(pods)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    (left, directories)
}

/// The ids of containers and pods, which are words of 64 hexadecimal digits; digests, which are too, do no harm.
fn containers(log: &str) -> BTreeSet<String> {
    log.split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_a_log() {
        let id = "0123456789abcdef".repeat(4);
        let log = format!("msg=\"StartContainer for \\\"{id}\\\"\" digest=\"sha256:{id}\" {id}0");
        assert_eq!(containers(&log), BTreeSet::from([id]));
    }
}
