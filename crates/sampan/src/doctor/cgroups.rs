//! cgroups: which version, and whether the controllers are there that limits need.

use std::path::Path;

use crate::doctor::finding::Finding;
use crate::doctor::handlers::Handler;

const ABOUT: &str = "cgroups";
/// Without these a pod's limits count for nothing.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn examine(root: &Path, handlers: &[Handler], findings: &mut Vec<Finding>) {
    let mounted = root.join("sys/fs/cgroup");
    let unified = std::fs::read_to_string(mounted.join("cgroup.controllers"));
    let (version, there) = match &unified {
        Ok(controllers) => (
            "2",
            NEEDED.map(|name| controllers.split_whitespace().any(|known| known == name)),
        ),
        Err(_) => ("1", NEEDED.map(|name| mounted.join(name).is_dir())),
    };
    let missing: Vec<_> = NEEDED
        .iter()
        .zip(there)
        .filter_map(|(name, there)| (!there).then_some(*name))
        .collect();
    findings.push(if missing.is_empty() {
        Finding::good(ABOUT, format!("version {version}, with {}", NEEDED.join(", ")))
    } else if missing.len() == NEEDED.len() && unified.is_err() {
        Finding::fault(
            ABOUT,
            format!("none are mounted at {}", mounted.display()),
            "mount cgroup2 there, or run this on the host",
        )
    } else {
        Finding::fault(
            ABOUT,
            format!("version {version} lacks {}", missing.join(", ")),
            "enable them: kernel command line cgroup_enable=..., or +NAME in cgroup.subtree_control",
        )
    });
    let systemd = root.join("run/systemd/system").is_dir();
    for handler in handlers.iter().filter(|handler| handler.systemd_cgroup) {
        if !systemd {
            findings.push(Finding::fault(
                ABOUT,
                format!(
                    "{}: SystemdCgroup = true, and systemd does not run here",
                    handler.name
                ),
                "SystemdCgroup = false, and cgroupDriver: cgroupfs for the kubelet",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::State;

    #[test]
    fn missing_controllers_are_named() {
        let state = |make: &dyn Fn(&Path)| {
            let root = tempfile::TempDir::new().expect("a directory");
            make(root.path());
            let mut findings = Vec::new();
            examine(root.path(), &[], &mut findings);
            (findings[0].state, findings[0].what.clone())
        };
        let (found, what) = state(&|root| {
            let dir = root.join("sys/fs/cgroup");
            std::fs::create_dir_all(&dir).expect("made");
            std::fs::write(
                dir.join("cgroup.controllers"),
                "cpuset cpu io memory pids\n",
            )
            .expect("written");
        });
        assert_eq!((found, what.contains("version 2")), (State::Good, true));
        let (found, what) = state(&|root| {
            let dir = root.join("sys/fs/cgroup");
            std::fs::create_dir_all(&dir).expect("made");
            std::fs::write(dir.join("cgroup.controllers"), "cpuset cpu pids\n").expect("written");
        });
        assert_eq!(
            (found, what.as_str()),
            (State::Fault, "version 2 lacks memory")
        );
        let (found, _) = state(&|root| {
            for name in NEEDED {
                std::fs::create_dir_all(root.join("sys/fs/cgroup").join(name)).expect("made");
            }
        });
        assert_eq!(found, State::Good);
        assert_eq!(state(&|_| ()).0, State::Fault);
    }
}
