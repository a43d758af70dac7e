//! What a container has used, in the types that containerd and CRI read. Version 1 and 2 of
//! cgroups have each their own: in the other's, CPU time would have the wrong unit.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use jail::{Cgroup, IoCount, Stats, StatsV1, StatsV2, UsageV1};

use crate::failure::{Failure, Outcome, of_jail};

/// The counts of a container's cgroup.
pub(crate) fn of(cgroup: &Cgroup) -> Outcome<Any> {
    match cgroup.stats().map_err(|error| of_jail(&error))? {
        Stats::V1(stats) => any("v1", &version_1(&stats)),
        Stats::V2(stats) => any("v2", &version_2(&stats)),
    }
}

/// containerd's typeurl has bare names.
fn any<M: Message>(version: &str, metrics: &M) -> Outcome<Any> {
    Ok(Any {
        type_url: format!("io.containerd.cgroups.{version}.{}", M::NAME),
        value: metrics.write_to_bytes().map_err(Failure::internal)?,
        ..Default::default()
    })
}

/// The message whose fields have the kernel's names, but for those that `named` gives another. What containerd has no
/// number for is left out. The fields are written out: those that the messages know of themselves (their descriptors)
/// would be a tenth of the program.
macro_rules! from_table {
    ($message:ty, $table:expr, $named:expr, [$($field:ident),+ $(,)?]) => {{
        let mut message = <$message>::default();
        for (name, value) in $table {
            match $named(name.as_str()).as_ref() {
                $(stringify!($field) => message.$field = *value,)+
                _ => {}
            }
        }
        message
    }};
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
    cpu.throttling = MessageField::some(from_table!(
        v1::Throttle,
        &stats.throttling,
        throttling_name_1,
        [periods, throttled_periods, throttled_time]
    ));
    let mut memory = memory_1(&stats.memory);
    memory.usage = entry(&stats.memory_usage);
    memory.swap = entry(&stats.swap_usage);
    memory.kernel = entry(&stats.kernel_usage);
    memory.kernel_tcp = entry(&stats.tcp_usage);
    let oom = from_table!(
        v1::MemoryOomControl,
        &stats.oom,
        str::to_owned,
        [oom_kill_disable, under_oom, oom_kill]
    );
    v1::Metrics {
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: stats.io_bytes.iter().map(block).collect(),
            io_serviced_recursive: stats.io_operations.iter().map(block).collect(),
            ..Default::default()
        }),
        memory_oom_control: MessageField::some(oom),
        ..Default::default()
    }
}

fn throttling_name_1(name: &str) -> &str {
    match name {
        "nr_periods" => "periods",
        "nr_throttled" => "throttled_periods",
        same => same,
    }
}

/// The kernel's `swap` is a number where containerd has a whole entry of that name.
fn memory_1(table: &BTreeMap<String, u64>) -> v1::MemoryStat {
    from_table!(
        v1::MemoryStat,
        table,
        memory_name_1,
        [
            cache,
            rss,
            rss_huge,
            mapped_file,
            dirty,
            writeback,
            pg_pg_in,
            pg_pg_out,
            pg_fault,
            pg_maj_fault,
            inactive_anon,
            active_anon,
            inactive_file,
            active_file,
            unevictable,
            hierarchical_memory_limit,
            hierarchical_swap_limit,
            total_cache,
            total_rss,
            total_rss_huge,
            total_mapped_file,
            total_dirty,
            total_writeback,
            total_pg_pg_in,
            total_pg_pg_out,
            total_pg_fault,
            total_pg_maj_fault,
            total_inactive_anon,
            total_active_anon,
            total_inactive_file,
            total_active_file,
            total_unevictable,
        ]
    )
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
    let mut memory = memory_2(&stats.memory);
    memory.usage = stats.memory_usage;
    memory.usage_limit = stats.memory_limit;
    memory.max_usage = stats.memory_peak;
    memory.swap_usage = stats.swap_usage;
    memory.swap_limit = stats.swap_limit;
    let cpu = from_table!(
        v2::CPUStat,
        &stats.cpu,
        str::to_owned,
        [
            usage_usec,
            user_usec,
            system_usec,
            nr_periods,
            nr_throttled,
            throttled_usec,
            nr_bursts,
            burst_usec,
        ]
    );
    let memory_events = from_table!(
        v2::MemoryEvents,
        &stats.memory_events,
        str::to_owned,
        [low, high, max, oom, oom_kill, oom_group_kill]
    );
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids,
            limit: stats.pids_limit,
            ..Default::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        memory_events: MessageField::some(memory_events),
        io: MessageField::some(v2::IOStat {
            usage: devices(&stats.io),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn memory_2(table: &BTreeMap<String, u64>) -> v2::MemoryStat {
    from_table!(
        v2::MemoryStat,
        table,
        str::to_owned,
        [
            anon,
            file,
            kernel_stack,
            slab,
            sock,
            shmem,
            file_mapped,
            file_dirty,
            file_writeback,
            anon_thp,
            inactive_anon,
            active_anon,
            inactive_file,
            active_file,
            unevictable,
            slab_reclaimable,
            slab_unreclaimable,
            pgfault,
            pgmajfault,
            workingset_refault,
            workingset_activate,
            workingset_nodereclaim,
            pgrefill,
            pgscan,
            pgsteal,
            pgactivate,
            pgdeactivate,
            pglazyfree,
            pglazyfreed,
            thp_fault_alloc,
            thp_collapse_alloc,
        ]
    )
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
    use containerd_shim_protos::protobuf::MessageFull;
    use containerd_shim_protos::protobuf::reflect::{RuntimeFieldType, RuntimeType};

    use super::*;

    fn table(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    /// The numbers of a message that a table with all their names leaves at zero.
    fn left_out<M: MessageFull>(message: &M) -> Vec<String> {
        M::descriptor()
            .fields()
            .filter(|field| {
                matches!(
                    field.runtime_field_type(),
                    RuntimeFieldType::Singular(RuntimeType::U64)
                ) && !field.has_field(message)
            })
            .map(|field| field.name().to_owned())
            .collect()
    }

    /// One of each of the message's names, as the kernel writes them.
    fn all<M: MessageFull>() -> BTreeMap<String, u64> {
        M::descriptor()
            .fields()
            .map(|field| (field.name().to_owned(), 1))
            .collect()
    }

    #[test]
    fn no_number_is_left_out_that_containerd_has_a_field_for() {
        let memory = memory_1(&all::<v1::MemoryStat>());
        assert_eq!(left_out(&memory), [""; 0]);
        let metrics = version_1(&StatsV1 {
            throttling: all::<v1::Throttle>(),
            oom: all::<v1::MemoryOomControl>(),
            ..Default::default()
        });
        assert_eq!(left_out(&*metrics.cpu.throttling), [""; 0]);
        assert_eq!(left_out(&*metrics.memory_oom_control), [""; 0]);
        let metrics = version_2(&StatsV2 {
            cpu: all::<v2::CPUStat>(),
            memory: all::<v2::MemoryStat>(),
            memory_events: all::<v2::MemoryEvents>(),
            memory_usage: 1,
            memory_limit: 1,
            memory_peak: 1,
            swap_usage: 1,
            swap_limit: 1,
            ..Default::default()
        });
        assert_eq!(left_out(&*metrics.cpu), [""; 0]);
        assert_eq!(left_out(&*metrics.memory_events), [""; 0]);
        // The kernel's peak of swap is read by nobody.
        assert_eq!(left_out(&*metrics.memory), ["swap_max_usage"]);
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
            any("v1", &metrics).expect("encodes").type_url,
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
            any("v2", &metrics).expect("encodes").type_url,
            "io.containerd.cgroups.v2.Metrics"
        );
    }
}
