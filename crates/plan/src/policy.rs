//! What a pod, a RuntimeClass and a node may say about a guest, in one table.
//!
//! A value comes from the pod's annotation, else the runtime options, else `[defaults]` of the node's file, else from
//! this table. `[ceilings]` of the node's file is what neither pod nor RuntimeClass can exceed: asking for more is an
//! error, and what nobody asked for is lowered silently.

mod outbound;
mod reading;
mod reference;
mod resolve;
mod setting;

pub use outbound::{Host, Outbound, Rule};
pub use reading::{Layers, Settings};
pub use reference::{ceilings_list, settings_table};
pub use resolve::Policy;
pub(crate) use setting::Setting;

/// One thing that can be set.
#[derive(Debug, PartialEq, Eq)]
pub struct Knob {
    /// `sampan.dev/NAME` as an annotation; the same name is the key of the runtime options and of the node's tables.
    pub name: &'static str,
    /// What a value looks like.
    pub takes: &'static str,
    /// What holds where nobody says anything; empty where `meaning` says it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Who may set it.
    pub scope: Scope,
    /// Whether the node can set a ceiling for it.
    pub ceiling: bool,
}

/// Who may set a knob; the node's `[defaults]` may set all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Pods by annotation, RuntimeClasses by runtime options.
    Pod,
    /// RuntimeClasses alone: it decides how code is made, which all pods of a class share.
    Class,
}

impl Knob {
    const fn pod(
        name: &'static str,
        takes: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            name,
            takes,
            default,
            meaning,
            scope: Scope::Pod,
            ceiling: false,
        }
    }

    const fn with_ceiling(self) -> Self {
        Self {
            ceiling: true,
            ..self
        }
    }

    const fn of_the_class(self) -> Self {
        Self {
            scope: Scope::Class,
            ..self
        }
    }

    /// The knob of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOBS.into_iter().find(|knob| knob.name == name)
    }
}

pub(crate) const HTTP_LISTEN: Knob = Knob::pod(
    "http-listen",
    "`ADDRESS:PORT` or `PORT`",
    "",
    "where an HTTP guest listens; without it the first of the variables `SAMPAN_HTTP_LISTEN`, `WASMTIME_HTTP_PROXY_SOCKET_ADDR`, `SPIN_HTTP_LISTEN_ADDR`, `PORT` that is set, else `0.0.0.0:8080`",
);
pub(crate) const NETWORK: Knob = Knob::pod(
    "network",
    "`all`, `listen` or `none`",
    "all",
    "which sockets the guest has: all that the pod's network namespace allows, those that listen and answer, or none; an HTTP guest needs at least `listen`",
)
.with_ceiling();
pub(crate) const ALLOW_OUTBOUND: Knob = Knob::pod(
    "allow-outbound",
    "list, by commas, of `HOST[:PORT]`, `IP[/PREFIX][:PORT]`, `*.DOMAIN[:PORT]` (IPv6 in brackets)",
    "",
    "where given, sockets and wasi:http go nowhere else; listening stays as `network` says",
)
.with_ceiling();
pub(crate) const NAME_LOOKUP: Knob = Knob::pod(
    "name-lookup",
    "`true` or `false`",
    "true",
    "whether the guest may look names up; `false` leaves those that `allow-outbound` lists",
)
.with_ceiling();
pub(crate) const ROOTFS: Knob = Knob::pod(
    "rootfs",
    "`rw`, `ro` or `none`",
    "rw",
    "what the guest sees at `/`: the image's files as `readOnlyRootFilesystem` says, the same but never writable, or nothing but the volumes",
)
.with_ceiling();
pub(crate) const CONFIG_DIR: Knob = Knob::pod(
    "config-dir",
    "absolute path in the guest's view",
    "",
    "directory, such as a mounted ConfigMap, whose files are the values of `wasi:config`; without it the environment is",
);
pub(crate) const ON_TERM: Knob = Knob::pod(
    "on-term",
    "name of an export without parameters",
    "",
    "function that is run when the container is asked to end (SIGTERM), before it ends",
);
pub(crate) const MAX_STACK: Knob = Knob::pod(
    "max-stack",
    "bytes (`512Ki`), 64Ki to 64Mi",
    "512Ki",
    "stack of WebAssembly code; going deeper is a trap",
)
.with_ceiling();
pub(crate) const FUEL: Knob = Knob::pod(
    "fuel",
    "number, or `none`",
    "none",
    "units of work (about one per WebAssembly instruction) that a command, or one instance of an HTTP guest, may use; costs 12 to 18 % of its speed",
)
.with_ceiling();
pub(crate) const MAX_EXECS: Knob = Knob::pod(
    "max-execs",
    "1 to 1000",
    "100",
    "processes that are executed beside the guest at once (`kubectl exec`, probes, hooks); one more is refused",
)
.with_ceiling();
pub(crate) const REQUEST_TIMEOUT: Knob = Knob::pod(
    "request-timeout",
    "duration (`500ms`, `30s`, `1m30s`), or `none`",
    "none",
    "HTTP: time for a request, from its arrival to the end of the answer; beyond it the guest is stopped and the client gets 504",
)
.with_ceiling();
pub(crate) const MAX_CONCURRENT_REQUESTS: Knob = Knob::pod(
    "max-concurrent-requests",
    "1 to 20000",
    "1000",
    "HTTP: requests that the guest answers at once; as many again wait for their turn, the rest gets 503",
)
.with_ceiling();
pub(crate) const MAX_REQUEST_BODY: Knob = Knob::pod(
    "max-request-body",
    "bytes (`10Mi`), or `none`",
    "none",
    "HTTP: longest body of a request; beyond it the client gets 413",
)
.with_ceiling();
pub(crate) const REUSE_INSTANCES: Knob = Knob::pod(
    "reuse-instances",
    "1 to 1000000",
    "",
    "HTTP: requests that one instance answers in its life, one after another (WASI 0.2) or 16 at once (0.3); 1 for 0.2, 128 for 0.3",
)
.with_ceiling();
pub(crate) const MAX_INSTANCE_AGE: Knob = Knob::pod(
    "max-instance-age",
    "duration, or `none`",
    "none",
    "HTTP: an instance older than this takes no further request",
)
.with_ceiling();
pub(crate) const ACCESS_LOG: Knob = Knob::pod(
    "access-log",
    "`off` or `json`",
    "off",
    "HTTP: a line of JSON on standard error for every request: `time`, `method`, `path`, `status`, `bytes`, `ms`, `id`",
);
pub(crate) const LOG_REQUEST_ID: Knob = Knob::pod(
    "log-request-id",
    "`true` or `false`",
    "false",
    "HTTP: every line that the guest writes begins with `[ID] `, the id of the request (its `x-request-id`, else one of ours); an instance then answers one request at a time",
);
pub(crate) const LOG_FORMAT: Knob = Knob::pod(
    "log-format",
    "`text` or `json`",
    "text",
    "how the guest's lines are written: as they are, or each as a JSON object with `time`, `stream`, `message`, of `wasi:logging` and `wasi:otel` also `level` and `context`, with `log-request-id` also `request`; a terminal gets them as they are",
);
pub(crate) const COREDUMP: Knob = Knob::pod(
    "coredump",
    "absolute path in the guest's view",
    "",
    "directory in a volume, where a guest that traps leaves a core dump: `CONTAINER.N.core.wasm`, N being 0 to 2; where all three are there, none is added",
);
pub(crate) const COREDUMP_MAX_BYTES: Knob = Knob::pod(
    "coredump-max-bytes",
    "bytes (`256Mi`), 64Ki to 3Gi",
    "256Mi",
    "size of a core dump; what does not fit of the guest's memory is left out",
)
.with_ceiling();
pub(crate) const DISABLE_PROPOSALS: Knob = Knob::pod(
    "disable-proposals",
    "list, by commas, of `exceptions`, `gc`, `memory64`, `multi-memory`, `relaxed-simd`, `simd`, `tail-call`",
    "",
    "WebAssembly features that programs must not use; `simd` takes `relaxed-simd` with it",
)
.of_the_class();
pub(crate) const POOLING: Knob = Knob::pod(
    "pooling",
    "`true` or `false`",
    "true",
    "HTTP: instances come out of a pool made at the start; `false` takes less address space and is slower",
)
.of_the_class();

/// All of them, in the order of the reference.
pub const KNOBS: [&Knob; 22] = [
    &HTTP_LISTEN,
    &NETWORK,
    &ALLOW_OUTBOUND,
    &NAME_LOOKUP,
    &ROOTFS,
    &CONFIG_DIR,
    &ON_TERM,
    &MAX_STACK,
    &FUEL,
    &MAX_EXECS,
    &REQUEST_TIMEOUT,
    &MAX_CONCURRENT_REQUESTS,
    &MAX_REQUEST_BODY,
    &REUSE_INSTANCES,
    &MAX_INSTANCE_AGE,
    &ACCESS_LOG,
    &LOG_REQUEST_ID,
    &LOG_FORMAT,
    &COREDUMP,
    &COREDUMP_MAX_BYTES,
    &DISABLE_PROPOSALS,
    &POOLING,
];
