use std::fmt;

/// A step between clone and exec, or of the pod's holder: the child can send a number, not words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    JoinCgroup,
    JoinNamespace,
    NewUserNamespace,
    MapIds,
    BecomeRoot,
    NewNamespaces,
    PlaceDescriptors,
    Execute,
    CutMounts,
    EmptyRoot,
    Hostname,
    Sysctl,
    OomScore,
    Privileges,
    Filter,
    Limits,
    Terminal,
}

const ALL: [(Step, &str); 17] = [
    (Step::JoinCgroup, "join the container's cgroup"),
    (Step::JoinNamespace, "join a namespace of the pod"),
    (Step::NewUserNamespace, "make a user namespace"),
    (Step::MapIds, "map user and group ids"),
    (Step::BecomeRoot, "become root of the user namespace"),
    (Step::NewNamespaces, "make namespaces"),
    (Step::PlaceDescriptors, "place descriptors"),
    (Step::Execute, "execute the runner"),
    (Step::CutMounts, "make the mounts private"),
    (Step::EmptyRoot, "leave the host's root"),
    (Step::Hostname, "set the host name"),
    (Step::Sysctl, "set a kernel parameter"),
    (Step::OomScore, "set oom_score_adj"),
    (Step::Privileges, "give privileges up"),
    (Step::Filter, "load the seccomp filter"),
    (Step::Limits, "set resource limits"),
    (Step::Terminal, "take the terminal"),
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = ALL
            .iter()
            .find(|(step, _)| step == self)
            .map_or("?", |(_, text)| text);
        f.write_str(text)
    }
}

/// A step that failed: which, on the how-manieth thing, with which error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) errno: i32,
}

impl Failed {
    pub(crate) fn new(step: Step, index: usize, error: &std::io::Error) -> Self {
        Self {
            step,
            index: index as u32,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// As it goes over the wire, behind the tag.
    pub(crate) fn encode(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[0] = self.step as u8;
        bytes[1..5].copy_from_slice(&self.index.to_le_bytes());
        bytes[5..].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (step, rest) = bytes.split_first()?;
        let (index, errno) = rest.split_first_chunk::<4>()?;
        Some(Self {
            step: ALL
                .iter()
                .map(|(known, _)| *known)
                .find(|known| *known as u8 == *step)?,
            index: u32::from_le_bytes(*index),
            errno: i32::from_le_bytes(errno.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_wire() {
        for (step, _) in ALL {
            let failed = Failed {
                step,
                index: 3,
                errno: libc::EPERM,
            };
            assert_eq!(Failed::decode(&failed.encode()), Some(failed));
        }
        assert_eq!(Failed::decode(&[200, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Failed::decode(&[0, 1]), None);
    }
}
