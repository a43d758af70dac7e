use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{CoreDump, EngineSettings, Entry, HttpListen, Outbound};

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
    /// The file, in the guest's view, that is to say why it ended if it did not end by itself.
    pub termination: Option<String>,
    /// What it sees at `/`.
    pub rootfs: RootAccess,
    /// How it serves requests, if it does.
    pub serving: Serving,
    /// Directory in the guest's view whose files are the values of wasi:config; `None` is the environment.
    pub config_dir: Option<String>,
    /// The export that is run before it ends by SIGTERM.
    pub on_term: Option<String>,
    /// The core dump that it leaves if it traps, or why it cannot leave the one that is asked for.
    pub coredump: Option<Result<CoreDump, String>>,
    /// How its lines are written.
    pub log_format: LogFormat,
    /// How its code was made and its instances are.
    pub engine: EngineSettings,
}

/// Which sockets a guest may use. The pod's network namespace and NetworkPolicy stand behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whether it may bind, listen and take what comes; an HTTP guest's requests come through this as well.
    pub listen: bool,
    /// Where its connections, datagrams and wasi:http requests may go.
    pub outbound: Outbound,
    /// Whether it may look up every name; else only those that [`Network::outbound`] lists.
    pub name_lookup: bool,
}

impl Default for Network {
    /// Everything that the pod's network namespace allows.
    fn default() -> Self {
        Self {
            listen: true,
            outbound: Outbound::All,
            name_lookup: true,
        }
    }
}

/// How much of the network a guest has; ordered from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// No socket at all.
    None,
    /// Sockets that listen and answer.
    Listen,
    /// All.
    All,
}

/// What a guest sees at `/`; ordered from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RootAccess {
    /// Nothing but the volumes at their paths.
    None,
    /// The image's files, never writable.
    ReadOnly,
    /// The image's files, writable unless the spec says otherwise.
    ReadWrite,
}

/// How an HTTP guest's requests are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Time for a request, from its arrival to the end of the answer; `None` is no bound.
    pub request_timeout: Option<Duration>,
    /// Requests that the guest answers at once, 1 to 20,000; as many again wait.
    pub max_requests: u32,
    /// Bytes of a request's body; `None` is no bound.
    pub max_body: Option<u64>,
    /// Requests that an instance of a WASI 0.2 guest answers in its life.
    pub reuse_0_2: u32,
    /// The same of WASI 0.3.
    pub reuse_0_3: u32,
    /// An older instance takes no further request; `None` is no bound.
    pub max_age: Option<Duration>,
    /// Whether every request is told as a line of JSON on standard error.
    pub access_log: bool,
    /// Whether the guest's lines begin with the id of the request.
    pub log_request_id: bool,
}

impl Serving {
    /// Toolchains of 0.2 count on an instance of their own for every request.
    pub const REUSE_0_2: u32 = 1;
    /// What `wasmtime serve` does.
    pub const REUSE_0_3: u32 = 128;
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            request_timeout: None,
            max_requests: 1000,
            max_body: None,
            reuse_0_2: Self::REUSE_0_2,
            reuse_0_3: Self::REUSE_0_3,
            max_age: None,
            access_log: false,
            log_request_id: false,
        }
    }
}

/// Whether requests are told; ordered from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessLog {
    /// No.
    Off,
    /// As JSON.
    Json,
}

/// How the lines that a guest writes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogFormat {
    /// As they are.
    #[default]
    Text,
    /// Each as a JSON object.
    Json,
}

/// Limits that the engine enforces, below those of the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Bytes of all linear memories and tables of the guest together; `None` is no limit.
    pub memory: Option<u64>,
    /// Bytes of the stack of WebAssembly code.
    pub stack: u64,
    /// Units of work of one instance; `None` is no limit.
    pub fuel: Option<u64>,
    /// Processes that are executed beside it at once; the supervisor counts them.
    pub execs: u32,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory: None,
            stack: Self::STACK,
            fuel: None,
            execs: Self::EXECS,
        }
    }
}

impl GuestLimits {
    /// What the engine, its stacks and its code need beside the guest's memory, in bytes. A
    /// guest that is refused at this distance from the cgroup's limit is not killed by it.
    pub const HEADROOM: u64 = 8 << 20;
    /// Bytes of stack where nobody says anything: wasmtime's own default.
    pub const STACK: u64 = 512 << 10;
    /// Processes that are executed at once where nobody says anything. Each costs the supervisor six descriptors or so,
    /// of the 1,024 that a service has by default.
    pub const EXECS: u32 = 100;

    /// The guest's limit under a cgroup limit of `cgroup` bytes (none if not positive): the
    /// headroom less, but at least half of it, so that a small limit leaves the guest something.
    #[must_use]
    pub fn below(cgroup: Option<i64>) -> Self {
        let memory = cgroup
            .and_then(|limit| u64::try_from(limit).ok())
            .filter(|limit| *limit > 0)
            .map(|limit| limit.saturating_sub(Self::HEADROOM).max(limit / 2));
        Self {
            memory,
            ..Self::default()
        }
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
