//! The debug guest, which every wasm container can execute by its name however empty its image is, and what it is told
//! about the container: no guest can know its own limits and rights.

use debug_guest::Facts;
use jail::{Child, Stats};
use plan::{Access, GuestPlan, Network, Outbound};

use crate::container::Container;

pub(crate) use debug_guest::{GUEST, NAME};

/// The arguments of a debug guest: those of the request, and the facts behind them.
pub(crate) fn args(container: &Container, guest: &GuestPlan) -> Vec<String> {
    let preopens = container
        .main
        .child()
        .and_then(Child::preopens)
        .unwrap_or_default();
    // What cannot be read is not shown: the rest is of use all the same.
    let usage = container
        .cgroup
        .stats()
        .map(|stats| usage(&stats))
        .unwrap_or_default();
    let facts = Facts {
        cwd: guest.cwd.clone(),
        preopens: preopens
            .into_iter()
            .map(|preopen| (preopen.path, preopen.access == Access::ReadWrite))
            .collect(),
        network: network(&guest.network),
        limits: limits(guest),
        usage,
    };
    let mut args = guest.args.clone();
    args.push(facts.to_argument());
    args
}

fn network(network: &Network) -> Vec<String> {
    let mut lines = match &network.outbound {
        Outbound::All => vec!["all that the pod's network namespace allows".to_owned()],
        Outbound::Listed(rules) if rules.is_empty() => vec!["nothing goes out".to_owned()],
        Outbound::Listed(rules) => rules.iter().map(|rule| format!("out to {rule}")).collect(),
    };
    if !network.listen {
        lines.push("no listening".to_owned());
    }
    if !network.name_lookup {
        lines.push("no lookup but of the names that are listed".to_owned());
    }
    lines
}

fn limits(guest: &GuestPlan) -> Vec<(String, String)> {
    let memory = guest
        .limits
        .memory
        .map_or_else(|| "none".to_owned(), |bytes| format!("{bytes} bytes"));
    let mut limits = vec![
        ("memory of the guest".to_owned(), memory),
        ("stack".to_owned(), format!("{} bytes", guest.limits.stack)),
    ];
    if let Some(fuel) = guest.limits.fuel {
        limits.push(("fuel".to_owned(), fuel.to_string()));
    }
    if let Some(time) = guest.serving.request_timeout {
        limits.push(("time of a request".to_owned(), format!("{time:?}")));
    }
    limits
}

/// What the container uses now, in words.
fn usage(stats: &Stats) -> Vec<(String, String)> {
    let (memory, limit, microseconds, tasks, most) = match stats {
        Stats::V1(stats) => (
            stats.memory_usage.usage,
            stats.memory_usage.limit,
            stats.cpu_total / 1_000,
            stats.pids,
            stats.pids_limit,
        ),
        Stats::V2(stats) => (
            stats.memory_usage,
            stats.memory_limit,
            stats.cpu.get("usage_usec").copied().unwrap_or(0),
            stats.pids,
            stats.pids_limit,
        ),
    };
    // No limit is a huge number in version 1, the largest in version 2.
    let of_limit = if limit > u64::MAX / 4 {
        String::new()
    } else {
        format!(" of {}", mebibytes(limit))
    };
    let of_most = if most == 0 {
        String::new()
    } else {
        format!(" of {most}")
    };
    let (seconds, milliseconds) = (microseconds / 1_000_000, microseconds / 1_000 % 1_000);
    vec![
        (
            "memory".to_owned(),
            format!("{}{of_limit}", mebibytes(memory)),
        ),
        ("cpu".to_owned(), format!("{seconds}.{milliseconds:03} s")),
        ("threads".to_owned(), format!("{tasks}{of_most}")),
    ]
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jail::{StatsV1, StatsV2, UsageV1};

    #[test]
    fn usage_is_the_same_in_both_versions() {
        let first = StatsV1 {
            cpu_total: 1_234_567_890,
            memory_usage: UsageV1 {
                usage: 3 << 19,
                limit: 64 << 20,
                ..UsageV1::default()
            },
            pids: 2,
            pids_limit: 77,
            ..StatsV1::default()
        };
        let second = StatsV2 {
            cpu: [("usage_usec".to_owned(), 1_234_567)].into(),
            memory_usage: 3 << 19,
            memory_limit: 64 << 20,
            pids: 2,
            pids_limit: 77,
            ..StatsV2::default()
        };
        let shown = usage(&Stats::V1(Box::new(first)));
        let values: Vec<&str> = shown.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1.5 MiB of 64.0 MiB", "1.234 s", "2 of 77"]);
        assert_eq!(shown, usage(&Stats::V2(Box::new(second))));
        let unlimited = StatsV2 {
            memory_limit: u64::MAX,
            ..StatsV2::default()
        };
        let shown = usage(&Stats::V2(Box::new(unlimited)));
        assert_eq!(shown[0].1, "0.0 MiB");
    }
}
