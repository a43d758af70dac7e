//! What an import is for, in words of a pod.

use serde::Serialize;

/// What a group of imports lets a program do, and what of a pod decides how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Capability {
    /// Arguments, variables, exit, standard streams.
    Process,
    Files,
    Network,
    Http,
    Clocks,
    Random,
    Configuration,
    Logging,
    /// Spans, logs and metrics of its own.
    Telemetry,
    /// Streams and polling, which the others are made of.
    Plumbing,
    /// Nothing that Sampan knows.
    Other,
}

impl Capability {
    /// What an import belongs to: an interface of a component, or module and function.
    pub(crate) fn of(name: &str, function: Option<&str>) -> Self {
        match function {
            Some(function) if name == "wasi_snapshot_preview1" => Self::of_preview1(function),
            Some(_) => Self::Other,
            None => Self::of_interface(name),
        }
    }

    fn of_preview1(function: &str) -> Self {
        let (group, _) = function.split_once('_').unwrap_or((function, ""));
        match group {
            "args" | "environ" | "proc" | "sched" => Self::Process,
            // Standard streams are descriptors too, but who only writes to them imports no more than these.
            "fd" if matches!(
                function,
                "fd_write" | "fd_close" | "fd_seek" | "fd_fdstat_get"
            ) =>
            {
                Self::Process
            }
            "fd" | "path" => Self::Files,
            "sock" => Self::Network,
            "clock" => Self::Clocks,
            "random" => Self::Random,
            "poll" => Self::Plumbing,
            _ => Self::Other,
        }
    }

    fn of_interface(name: &str) -> Self {
        let package = name
            .strip_prefix("wasi:")
            .and_then(|rest| rest.split(['/', '@']).next());
        match package {
            Some("cli") => Self::Process,
            Some("filesystem") => Self::Files,
            Some("sockets") => Self::Network,
            Some("http") => Self::Http,
            Some("clocks") => Self::Clocks,
            Some("random") => Self::Random,
            Some("config") => Self::Configuration,
            Some("logging") => Self::Logging,
            Some("otel") => Self::Telemetry,
            Some("io") => Self::Plumbing,
            _ => Self::Other,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Files => "files",
            Self::Network => "network",
            Self::Http => "http",
            Self::Clocks => "clocks",
            Self::Random => "random",
            Self::Configuration => "config",
            Self::Logging => "logging",
            Self::Telemetry => "telemetry",
            Self::Plumbing => "streams",
            Self::Other => "other",
        }
    }

    /// What of a pod decides how much of it a guest has; `None` where nothing does.
    pub(crate) const fn decided_by(self) -> Option<&'static str> {
        match self {
            Self::Files => Some("volumes, readOnlyRootFilesystem, sampan.dev/rootfs"),
            Self::Network | Self::Http => Some(
                "NetworkPolicy, sampan.dev/network, sampan.dev/allow-outbound, sampan.dev/name-lookup",
            ),
            Self::Configuration => Some("the environment, or sampan.dev/config-dir"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_belong_to_capabilities() {
        for (name, function, wanted) in [
            (
                "wasi_snapshot_preview1",
                Some("fd_write"),
                Capability::Process,
            ),
            (
                "wasi_snapshot_preview1",
                Some("path_open"),
                Capability::Files,
            ),
            (
                "wasi_snapshot_preview1",
                Some("sock_accept"),
                Capability::Network,
            ),
            ("env", Some("fd_write"), Capability::Other),
            ("wasi:filesystem/types@0.2.3", None, Capability::Files),
            ("wasi:http/types@0.3.0", None, Capability::Http),
            ("wasi:config/store", None, Capability::Configuration),
            ("wasi:otel/logs@0.2.0-rc.1", None, Capability::Telemetry),
            ("acme:db/query@1.0.0", None, Capability::Other),
        ] {
            assert_eq!(Capability::of(name, function), wanted, "{name}");
        }
    }
}
