//! What a container has used, in the types that containerd and CRI read. Version 1 and 2 of
//! cgroups have each their own: in the other's, CPU time would have the wrong unit.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::reflect::{ReflectValueBox, RuntimeFieldType, RuntimeType};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{MessageField, MessageFull};
use jail::{Cgroup, IoCount, Stats, StatsV1, StatsV2, UsageV1};

use crate::failure::{Failure, Outcome};
use crate::launch::of_jail;

/// The counts of a container's cgroup.
pub(crate) fn of(cgroup: &Cgroup) -> Outcome<Any> {
    match cgroup.stats().map_err(|error| of_jail(&error))? {
        Stats::V1(stats) => any(&version_1(&stats)),
        Stats::V2(stats) => any(&version_2(&stats)),
    }
}

/// containerd's typeurl has bare names.
fn any<M: MessageFull>(metrics: &M) -> Outcome<Any> {
    Ok(Any {
        type_url: M::descriptor().full_name().to_owned(),
        value: metrics.write_to_bytes().map_err(Failure::internal)?,
        ..Default::default()
    })
}

/// The message whose fields have the kernel's names, but for those that `named` gives another.
/// What containerd has no number for is left out: the kernel's `swap` of version 1 is a number where containerd has a
/// whole entry of that name.
fn from_table<M: MessageFull>(
    table: &BTreeMap<String, u64>,
    named: impl Fn(&str) -> String,
) -> MessageField<M> {
    let mut message = M::new();
    let descriptor = M::descriptor();
    for (name, value) in table {
        if let Some(field) = descriptor.field_by_name(&named(name))
            && let RuntimeFieldType::Singular(RuntimeType::U64) = field.runtime_field_type()
        {
            field.set_singular_field(&mut message, ReflectValueBox::U64(*value));
        }
    }
    MessageField::some(message)
}

fn version_1(stats: &StatsV1) -> v1::Metrics {
    let mut cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: stats.cpu_total,
            kernel: stats.cpu_kernel,
            user: stats.cpu_user,
            per_cpu: stats.cpu_each.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    cpu.throttling = from_table(&stats.throttling, |name| {
        match name {
            "nr_periods" => "periods",
            "nr_throttled" => "throttled_periods",
            same => same,
        }
        .to_owned()
    });
    let mut memory: MessageField<v1::MemoryStat> = from_table(&stats.memory, memory_name_1);
    if let Some(memory) = memory.as_mut() {
        memory.usage = entry(&stats.memory_usage);
        memory.swap = entry(&stats.swap_usage);
        memory.kernel = entry(&stats.kernel_usage);
        memory.kernel_tcp = entry(&stats.tcp_usage);
    }
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory,
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: stats.io_bytes.iter().map(block).collect(),
            io_serviced_recursive: stats.io_operations.iter().map(block).collect(),
            ..Default::default()
        }),
        memory_oom_control: from_table(&stats.oom, str::to_owned),
        ..Default::default()
    }
}

/// The generated names split some of the kernel's words.
fn memory_name_1(name: &str) -> String {
    if name == "hierarchical_memsw_limit" {
        return "hierarchical_swap_limit".to_owned();
    }
    name.replace("pgpgin", "pg_pg_in")
        .replace("pgpgout", "pg_pg_out")
        .replace("pgmajfault", "pg_maj_fault")
        .replace("pgfault", "pg_fault")
}

fn entry(usage: &UsageV1) -> MessageField<v1::MemoryEntry> {
    MessageField::some(v1::MemoryEntry {
        limit: usage.limit,
        usage: usage.usage,
        max: usage.max,
        failcnt: usage.failures,
        ..Default::default()
    })
}

fn block(count: &IoCount) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: count.operation.clone(),
        major: count.major,
        minor: count.minor,
        value: count.value,
        ..Default::default()
    }
}

fn version_2(stats: &StatsV2) -> v2::Metrics {
    let mut memory: MessageField<v2::MemoryStat> = from_table(&stats.memory, str::to_owned);
    if let Some(memory) = memory.as_mut() {
        memory.usage = stats.memory_usage;
        memory.usage_limit = stats.memory_limit;
        memory.max_usage = stats.memory_peak;
        memory.swap_usage = stats.swap_usage;
        memory.swap_limit = stats.swap_limit;
    }
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: from_table(&stats.cpu, str::to_owned),
        memory,
        memory_events: from_table(&stats.memory_events, str::to_owned),
        io: MessageField::some(v2::IOStat {
            usage: devices(&stats.io),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// One entry per device, of one count per line.
fn devices(counts: &[IoCount]) -> Vec<v2::IOEntry> {
    let mut entries: BTreeMap<(u64, u64), v2::IOEntry> = BTreeMap::new();
    for count in counts {
        let entry = entries.entry((count.major, count.minor)).or_default();
        (entry.major, entry.minor) = (count.major, count.minor);
        match count.operation.as_str() {
            "rbytes" => entry.rbytes = count.value,
            "wbytes" => entry.wbytes = count.value,
            "rios" => entry.rios = count.value,
            "wios" => entry.wios = count.value,
            _ => {}
        }
    }
    entries.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn version_1_counts_nanoseconds_under_containerds_names() {
        let metrics = version_1(&StatsV1 {
            cpu_total: 5_000_000_000,
            throttling: table(&[
                ("nr_periods", 3),
                ("nr_throttled", 2),
                ("throttled_time", 9),
            ]),
            memory: table(&[
                ("rss", 1),
                ("total_pgpgin", 2),
                ("hierarchical_memsw_limit", 3),
                ("unheard_of", 4),
                ("swap", 5),
                ("pgmajfault", 6),
            ]),
            memory_usage: UsageV1 {
                limit: 10,
                usage: 7,
                max: 8,
                failures: 1,
            },
            oom: table(&[("oom_kill", 1)]),
            ..Default::default()
        });
        assert_eq!(metrics.cpu.usage.total, 5_000_000_000);
        assert_eq!(
            (
                metrics.cpu.throttling.periods,
                metrics.cpu.throttling.throttled_periods,
                metrics.cpu.throttling.throttled_time
            ),
            (3, 2, 9)
        );
        assert_eq!(
            (
                metrics.memory.rss,
                metrics.memory.total_pg_pg_in,
                metrics.memory.hierarchical_swap_limit,
                metrics.memory.pg_maj_fault
            ),
            (1, 2, 3, 6)
        );
        assert_eq!(
            (metrics.memory.usage.usage, metrics.memory.usage.limit),
            (7, 10)
        );
        assert_eq!(metrics.memory_oom_control.oom_kill, 1);
        assert_eq!(
            any(&metrics).expect("encodes").type_url,
            "io.containerd.cgroups.v1.Metrics"
        );
    }

    #[test]
    fn version_2_counts_microseconds_in_its_own_type() {
        let count = |operation: &str, value| IoCount {
            major: 8,
            minor: 1,
            operation: operation.into(),
            value,
        };
        let metrics = version_2(&StatsV2 {
            cpu: table(&[("usage_usec", 5_000_000), ("nr_throttled", 2)]),
            memory: table(&[("anon", 1), ("pgfault", 2)]),
            memory_usage: 7,
            memory_events: table(&[("oom_kill", 3)]),
            io: vec![count("rbytes", 4), count("wios", 5)],
            ..Default::default()
        });
        assert_eq!(
            (metrics.cpu.usage_usec, metrics.cpu.nr_throttled),
            (5_000_000, 2)
        );
        assert_eq!(
            (
                metrics.memory.anon,
                metrics.memory.pgfault,
                metrics.memory.usage
            ),
            (1, 2, 7)
        );
        assert_eq!(metrics.memory_events.oom_kill, 3);
        assert_eq!(metrics.io.usage.len(), 1);
        assert_eq!(
            (
                metrics.io.usage[0].major,
                metrics.io.usage[0].rbytes,
                metrics.io.usage[0].wios
            ),
            (8, 4, 5)
        );
        assert_eq!(
            any(&metrics).expect("encodes").type_url,
            "io.containerd.cgroups.v2.Metrics"
        );
    }
}
