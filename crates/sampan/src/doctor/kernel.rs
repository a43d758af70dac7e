//! What the kernel has of what jails are made of.

use std::path::Path;

use crate::doctor::finding::Finding;

const ABOUT: &str = "kernel";
/// The oldest kernel that has all system calls that a start needs (docs/platform.md).
const OLDEST: (u32, u32) = (5, 14);

pub(super) fn examine(root: &Path, findings: &mut Vec<Finding>) {
    let read = |path: &str| {
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        Some(text.trim().to_owned())
    };
    let release = read("proc/sys/kernel/osrelease").unwrap_or_default();
    findings.push(match numbers(&release) {
        Some(found) if found >= OLDEST => Finding::good(ABOUT, release),
        Some(_) => Finding::fault(
            ABOUT,
            format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1),
            "use a newer kernel: detached mounts, openat2 and close_range are needed",
        ),
        None => Finding::unknown(ABOUT, format!("its release is `{release}`"), "mount /proc"),
    });
    match read("proc/sys/kernel/seccomp/actions_avail") {
        Some(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            findings.push(Finding::good(ABOUT, "seccomp filters"));
        }
        _ => findings.push(Finding::fault(
            ABOUT,
            "it has no seccomp filters (CONFIG_SECCOMP_FILTER)",
            "use a kernel that has them: no guest runs without its filter",
        )),
    }
    if let Some(maps) = read("proc/sys/vm/max_map_count").and_then(|text| text.parse::<u64>().ok())
        && maps < 65_530
    {
        findings.push(Finding::advice(
            ABOUT,
            format!("vm.max_map_count is {maps}: servers with many requests at once need more"),
            "sysctl -w vm.max_map_count=65530, or more",
        ));
    }
    let unified = root.join("sys/fs/cgroup/cgroup.controllers").exists();
    if let Some(most) =
        read("proc/sys/fs/inotify/max_user_instances").and_then(|text| text.parse::<u64>().ok())
        && unified
        && most < 1024
    {
        findings.push(Finding::advice(
            ABOUT,
            format!("fs.inotify.max_user_instances is {most}, and a container on cgroup v2 takes one"),
            "sysctl -w fs.inotify.max_user_instances=8192: beyond it a kill for want of memory is told at the container's end only",
        ));
    }
}

fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    fn states(files: &[(&str, &str)]) -> Vec<(State, String)> {
        let root = tempfile::TempDir::new().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let mut findings = Vec::new();
        examine(root.path(), &mut findings);
        findings
            .into_iter()
            .map(|finding| (finding.state, finding.what))
            .collect()
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let seccomp = (
            "proc/sys/kernel/seccomp/actions_avail",
            "kill_process errno allow\n",
        );
        let release = |text| ("proc/sys/kernel/osrelease", text);
        let good = states(&[release("6.18.1-cloud-amd64\n"), seccomp]);
        assert!(
            good.iter().all(|(state, _)| *state == State::Good),
            "{good:?}"
        );
        let old = states(&[release("5.10.0-8\n"), seccomp]);
        assert_eq!(old[0].0, State::Fault);
        let bare = states(&[release("5.14\n")]);
        assert_eq!((bare[0].0, bare[1].0), (State::Good, State::Fault));
        let few = states(&[
            release("6.1\n"),
            seccomp,
            ("proc/sys/vm/max_map_count", "1000\n"),
            ("sys/fs/cgroup/cgroup.controllers", ""),
            ("proc/sys/fs/inotify/max_user_instances", "128\n"),
        ]);
        let advice: Vec<_> = few
            .iter()
            .filter(|(state, _)| *state == State::Advice)
            .collect();
        assert_eq!(advice.len(), 2, "{few:?}");
    }
}
