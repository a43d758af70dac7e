//! Every family of numbers: its name, what it means, and where its samples come from.
use std::borrow::Cow;
use std::fmt::Write as _;

use plan::numbers::{Cause, Count, Durations, ENDS, Page, Phase, Role, Seen, Total, Trap};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Node;
use super::found::Container;

/// What is told of one thing.
pub(super) struct Family {
    /// Its name, without the prefix `sampan`, the unit, and the suffix of a counter.
    pub(super) name: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) kind: MetricType,
    labels: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: fn(&Node, &mut Vec<Sample>),
}

/// A number with its labels.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, Cow<'static, str>)>,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Count(u64),
    /// A count that is no whole number.
    Sum(f64),
    Level(f64),
    Durations(Seen),
}

fn plain(out: &mut Vec<Sample>, value: Value) {
    let labels = Vec::new();
    out.push(Sample { labels, value });
}

fn labelled(out: &mut Vec<Sample>, label: &'static str, name: &'static str, value: Value) {
    let labels = vec![(label, Cow::Borrowed(name))];
    out.push(Sample { labels, value });
}

fn count(node: &Node, out: &mut Vec<Sample>, total: Total) {
    plain(out, Value::Count(node.totals.get(total)));
}

/// A sample of a container, perhaps with one label more.
fn of(container: &Container, more: Option<(&'static str, String)>, value: Value) -> Sample {
    let name = &container.name;
    let mut labels = vec![
        ("namespace", Cow::Owned(name.namespace.clone())),
        ("pod", Cow::Owned(name.pod.clone())),
        ("container", Cow::Owned(name.container.clone())),
    ];
    labels.extend(more.map(|(label, value)| (label, Cow::Owned(value))));
    Sample { labels, value }
}

/// A sample for each container that has one.
fn each(node: &Node, out: &mut Vec<Sample>, value: impl Fn(&Container) -> Option<Value>) {
    let has = |container| Some(of(container, None, value(container)?));
    out.extend(node.containers.iter().filter_map(has));
}

/// The same by what its runner has counted.
fn each_page(node: &Node, out: &mut Vec<Sample>, value: impl Fn(&Page) -> Option<Value>) {
    each(node, out, |container| value(container.page.as_ref()?));
}

/// Whether it has ever been asked: the numbers of servers say nothing of others.
fn serves(page: &Page) -> bool {
    page.get(Count::Asked) > 0
}

const CONTAINER: &str = "namespace, pod, container";

/// All of them.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "containers",
        unit: None,
        kind: MetricType::Gauge,
        labels: "role",
        help: "Containers that are there: wasm, native, or holding a pod's namespaces (pod)",
        samples: |node, out| {
            for role in Role::ALL {
                let those = node.containers.iter().filter(|one| one.role == role);
                labelled(out, "role", role.name(), Value::Level(those.count() as f64));
            }
        },
    },
    Family {
        name: "supervisors",
        unit: None,
        kind: MetricType::Gauge,
        labels: "state",
        help: "Supervisors of these containers: alive, or dead with containers that nobody has removed yet (orphaned)",
        samples: |node, out| {
            for (state, count) in ["alive", "orphaned"].into_iter().zip(node.supervisors) {
                labelled(out, "state", state, Value::Level(count as f64));
            }
        },
    },
    Family {
        name: "containers_created",
        unit: None,
        kind: MetricType::Counter,
        labels: "role",
        help: "Containers that were created",
        samples: |node, out| {
            for role in Role::ALL {
                let value = node.totals.get(Total::Created(role));
                labelled(out, "role", role.name(), Value::Count(value));
            }
        },
    },
    Family {
        name: "create_failures",
        unit: None,
        kind: MetricType::Counter,
        labels: "cause",
        help: "Containers that could not be created, by what can be done about it",
        samples: |node, out| {
            for cause in Cause::ALL {
                let value = node.totals.get(Total::Refused(cause));
                labelled(out, "cause", cause.name(), Value::Count(value));
            }
        },
    },
    Family {
        name: "start_duration",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: "phase",
        help: "How long starts of wasm containers that went well took, and their parts; `create` is all that containerd waits for before Start",
        samples: |node, out| {
            for (phase, durations) in Phase::ALL.into_iter().zip(Durations::START) {
                let seen = durations.seen(&node.totals.0);
                labelled(out, "phase", phase.name(), Value::Durations(seen));
            }
        },
    },
    Family {
        name: "processes_executed",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Processes that were executed in containers",
        samples: |node, out| count(node, out, Total::Executed),
    },
    Family {
        name: "exits",
        unit: None,
        kind: MetricType::Counter,
        labels: "code",
        help: "Containers that ended, those of pods themselves left out, by their exit code; codes that are seldom are `other`",
        samples: |node, out| {
            let names = ENDS
                .iter()
                .map(ToString::to_string)
                .chain(["other".to_owned()]);
            for (name, place) in names.zip(0..) {
                let value = node.totals.get(Total::Ended(place));
                // A code that nothing has ended with yet is no series; 0 is where all begin.
                if value > 0 || place == 0 {
                    let labels = vec![("code", Cow::Owned(name))];
                    let value = Value::Count(value);
                    out.push(Sample { labels, value });
                }
            }
        },
    },
    Family {
        name: "traps",
        unit: None,
        kind: MetricType::Counter,
        labels: "kind",
        help: "Guests, or their instances for requests, that the engine stopped",
        samples: |node, out| {
            for (trap, value) in Trap::ALL.into_iter().zip(node.sums.traps) {
                labelled(out, "kind", trap.name(), Value::Count(value));
            }
        },
    },
    Family {
        name: "oom_kills",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Processes of containers that the kernel killed for want of memory",
        samples: |node, out| count(node, out, Total::OomKill),
    },
    Family {
        name: "fuel_used",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Units of fuel that guests with the setting `fuel` have used, counted when an instance is over",
        samples: |node, out| plain(out, Value::Count(node.sums.fuel)),
    },
    Family {
        name: "store_hits",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Programs that were compiled when they were asked for",
        samples: |node, out| count(node, out, Total::StoreHit),
    },
    Family {
        name: "store_misses",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Programs that had to be compiled; who waits for another's compilation is a hit",
        samples: |node, out| count(node, out, Total::StoreMiss),
    },
    Family {
        name: "store_evictions",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Compiled programs that were removed to keep the store below its limit",
        samples: |node, out| count(node, out, Total::StoreEvicted),
    },
    Family {
        name: "compile_duration",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: "",
        help: "How long programs took to compile",
        samples: |node, out| {
            let seen = Durations::COMPILE.seen(&node.totals.0);
            plain(out, Value::Durations(seen));
        },
    },
    Family {
        name: "compile_failures",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Programs that could not be compiled",
        samples: |node, out| count(node, out, Total::CompileFailed),
    },
    Family {
        name: "compiled_guest",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        labels: "",
        help: "Bytes of wasm that were compiled",
        samples: |node, out| count(node, out, Total::CompiledGuest),
    },
    Family {
        name: "compiled_artifact",
        unit: Some(Unit::Bytes),
        kind: MetricType::Counter,
        labels: "",
        help: "Bytes of the compiled programs that they became",
        samples: |node, out| count(node, out, Total::CompiledArtifact),
    },
    Family {
        name: "incidents_dropped",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Incidents of pods that became no event, because too many wait to be told",
        samples: |node, out| count(node, out, Total::IncidentDropped),
    },
    Family {
        name: "log_lines_dropped",
        unit: None,
        kind: MetricType::Counter,
        labels: "",
        help: "Lines of supervisors' own logs that were lost, because containerd was away or slow to read them",
        samples: |node, out| count(node, out, Total::LogLineDropped),
    },
    Family {
        name: "container_memory",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: CONTAINER,
        help: "Memory that the kernel counts for the container",
        samples: |node, out| {
            each(node, out, |one| {
                one.memory.map(|bytes| Value::Level(bytes as f64))
            });
        },
    },
    Family {
        name: "container_memory_limit",
        unit: Some(Unit::Bytes),
        kind: MetricType::Gauge,
        labels: CONTAINER,
        help: "Memory that the container may have; containers without a limit are left out",
        samples: |node, out| {
            each(node, out, |one| {
                one.memory_limit.map(|bytes| Value::Level(bytes as f64))
            });
        },
    },
    Family {
        name: "container_cpu",
        unit: Some(Unit::Seconds),
        kind: MetricType::Counter,
        labels: CONTAINER,
        help: "Time that the container spent on processors",
        samples: |node, out| each(node, out, |one| one.cpu.map(Value::Sum)),
    },
    Family {
        name: "container_traps",
        unit: None,
        kind: MetricType::Counter,
        labels: "namespace, pod, container, kind",
        help: "The same as sampan_traps of a container that runs; kinds that there were",
        samples: |node, out| {
            for container in &node.containers {
                for trap in Trap::ALL {
                    let traps = container.page.as_ref();
                    let traps = traps.map_or(0, |page| page.get(Count::Trapped(trap)));
                    if traps > 0 {
                        let kind = Some(("kind", trap.name().to_owned()));
                        out.push(of(container, kind, Value::Count(traps)));
                    }
                }
            }
        },
    },
    Family {
        name: "container_fuel_used",
        unit: None,
        kind: MetricType::Counter,
        labels: CONTAINER,
        help: "The same as sampan_fuel_used of a container that runs",
        samples: |node, out| {
            each_page(node, out, |page| {
                let fuel = page.get(Count::Fuel);
                (fuel > 0).then_some(Value::Count(fuel))
            });
        },
    },
    Family {
        name: "container_network_refusals",
        unit: None,
        kind: MetricType::Counter,
        labels: CONTAINER,
        help: "Connections, datagrams, requests and name lookups of the guest that its settings refuse; containers with some",
        samples: |node, out| {
            each_page(node, out, |page| {
                let refused = page.get(Count::NetworkRefused);
                (refused > 0).then_some(Value::Count(refused))
            });
        },
    },
    Family {
        name: "container_http_requests",
        unit: None,
        kind: MetricType::Counter,
        labels: "namespace, pod, container, code",
        help: "Requests that were answered, by the code of the answer; 499 is a client that went away first, counted with 4xx",
        samples: |node, out| {
            for container in &node.containers {
                for (code, answers) in container.page.iter().flat_map(Page::answers) {
                    out.push(of(container, Some(("code", code)), Value::Count(answers)));
                }
            }
        },
    },
    Family {
        name: "container_http_request_duration",
        unit: Some(Unit::Seconds),
        kind: MetricType::Histogram,
        labels: CONTAINER,
        help: "How long requests took, from the arrival of their header to the end of the answer",
        samples: |node, out| {
            each_page(node, out, |page| {
                serves(page).then(|| Value::Durations(Durations::REQUEST.seen(&page.0)))
            });
        },
    },
    Family {
        name: "container_http_requests_in_flight",
        unit: None,
        kind: MetricType::Gauge,
        labels: CONTAINER,
        help: "Requests that are not answered yet",
        samples: |node, out| {
            each_page(node, out, |page| {
                serves(page).then(|| Value::Level(page.in_flight() as f64))
            });
        },
    },
    Family {
        name: "container_http_instances",
        unit: None,
        kind: MetricType::Counter,
        labels: CONTAINER,
        help: "Instances of the guest that were made to answer requests",
        samples: |node, out| {
            each_page(node, out, |page| {
                serves(page).then(|| Value::Count(page.get(Count::Instance)))
            });
        },
    },
];

impl Family {
    /// As Prometheus calls it.
    fn full_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str()));
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            _ => "",
        };
        format!("sampan_{}{}{suffix}", self.name, unit.unwrap_or_default())
    }
}

/// The table of the documentation, as markdown.
#[must_use]
pub fn table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for family in FAMILIES {
        let labels = if family.labels.is_empty() {
            String::new()
        } else {
            format!("`{}`", family.labels.replace(", ", "`, `"))
        };
        let _ = writeln!(
            table,
            "| `{}` | {} | {labels} | {} |",
            family.full_name(),
            family.kind.as_str(),
            family.help
        );
    }
    table
}
