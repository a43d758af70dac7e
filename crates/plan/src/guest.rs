use serde::{Deserialize, Serialize};

use crate::{Entry, HttpListen};

/// What the runner is to run and what the guest gets; the directories come from the jail
/// ([`crate::preopens`]), because only there is known which mounts are directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPlan {
    /// Which function of the program is called.
    pub entry: Entry,
    /// Arguments; the first is the guest's name for itself, as the spec has it.
    pub args: Vec<String>,
    /// Environment of the spec; of a name that comes twice the last value alone.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Where it listens if it serves HTTP.
    pub http: HttpListen,
    /// What it may reach.
    pub network: Network,
    /// How much it may use.
    pub limits: GuestLimits,
    /// Whether only a command will do: a program that is executed beside the container's own ends, it does not serve.
    pub command: bool,
}

/// Which sockets a guest may use. The pod's network namespace and NetworkPolicy stand behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Everything that the pod's network namespace allows.
    All,
}

/// Limits that the engine enforces, below those of the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Bytes of all linear memories and tables of the guest together; `None` is no limit.
    pub memory: Option<u64>,
}

impl GuestLimits {
    /// What the engine, its stacks and its code need beside the guest's memory, in bytes. A
    /// guest that is refused at this distance from the cgroup's limit is not killed by it.
    pub const HEADROOM: u64 = 8 << 20;

    /// The guest's limit under a cgroup limit of `cgroup` bytes (none if not positive): the
    /// headroom less, but at least half of it, so that a small limit leaves the guest something.
    #[must_use]
    pub fn below(cgroup: Option<i64>) -> Self {
        let memory = cgroup
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0)
            .map(|limit| limit.saturating_sub(Self::HEADROOM).max(limit / 2));
        Self { memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_refused_before_the_kernel_kills() {
        let memory = |limit| GuestLimits::below(limit).memory;
        assert_eq!(memory(Some(128 << 20)), Some(120 << 20));
        assert_eq!(memory(Some(10 << 20)), Some(5 << 20));
        assert_eq!(memory(Some(-1)), None);
        assert_eq!(memory(Some(0)), None);
        assert_eq!(memory(None), None);
    }
}
