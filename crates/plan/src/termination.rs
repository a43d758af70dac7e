//! Where the kubelet looks for a container's last words (`terminationMessagePath`).
//!
//! The container's configuration does not say it: the kubelet only mounts a file of its own there (kubelet,
//! `kuberuntime.makeMounts`: `<root>/pods/<uid>/containers/<name>/<eight hexadecimal digits>`). So it is found among
//! the mounts.

use std::path::Path;

use crate::{MountPlan, MountSource};

/// Kubernetes' default (API reference, `terminationMessagePath`).
const DEFAULT: &str = "/dev/termination-log";

/// The file's path in the guest's view, if there is one and it may be written to.
pub(crate) fn message(
    mounts: &[MountPlan],
    pod: Option<&str>,
    container: Option<&str>,
) -> Option<String> {
    let is_it = |mount: &MountPlan| {
        let MountSource::Bind { path, .. } = &mount.source else {
            return false;
        };
        !mount.readonly && (mount.destination == DEFAULT || of_the_kubelet(path, pod, container))
    };
    // The last mount over a path is the one that shows.
    let found = mounts.iter().rev().find(|mount| is_it(mount))?;
    Some(found.destination.clone())
}

/// Whether the kubelet made this file for this container.
fn of_the_kubelet(path: &Path, pod: Option<&str>, container: Option<&str>) -> bool {
    let (Some(pod), Some(container)) = (pod, container) else {
        return false;
    };
    let mut names = path
        .components()
        .rev()
        .map(|name| name.as_os_str().to_str().unwrap_or_default());
    let mut next = || names.next().unwrap_or_default();
    let file = next();
    file.len() == 8
        && file.bytes().all(|digit| digit.is_ascii_hexdigit())
        && [next(), next(), next(), next()] == [container, "containers", pod, "pods"]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Propagation;

    fn mount(destination: &str, source: &str, readonly: bool) -> MountPlan {
        MountPlan {
            destination: destination.to_owned(),
            source: MountSource::Bind {
                owners: None,
                path: source.into(),
                recursive: true,
            },
            readonly,
            propagation: Propagation::Private,
        }
    }

    #[test]
    fn the_default_place_needs_no_more() {
        let mounts = [
            mount("/data", "/x", false),
            mount(DEFAULT, "/anything", false),
        ];
        assert_eq!(message(&mounts, None, None), Some(DEFAULT.to_owned()));
        assert_eq!(message(&mounts[..1], None, None), None);
        assert_eq!(message(&[mount(DEFAULT, "/x", true)], None, None), None);
    }

    #[test]
    fn another_place_is_known_by_its_source() {
        let kubelets = "/var/lib/kubelet/pods/uid-1/containers/app/0a1B2c3d";
        let mounts = [mount("/last/words", kubelets, false)];
        let found = Some("/last/words".to_owned());
        assert_eq!(message(&mounts, Some("uid-1"), Some("app")), found);
        assert_eq!(message(&mounts, Some("uid-2"), Some("app")), None);
        assert_eq!(message(&mounts, Some("uid-1"), Some("other")), None);
        assert_eq!(message(&mounts, None, None), None);
        for other in [
            "/var/lib/kubelet/pods/uid-1/containers/app/0a1b2c3d/x",
            "/var/lib/kubelet/pods/uid-1/volumes/app/0a1b2c3d",
            "/var/lib/kubelet/pods/uid-1/containers/app/notahex1",
            "/0a1b2c3d",
        ] {
            let mounts = [mount("/last/words", other, false)];
            assert_eq!(
                message(&mounts, Some("uid-1"), Some("app")),
                None,
                "{other}"
            );
        }
    }
}
