//! The node's numbers: what supervisors and runners have counted ([`plan::numbers`]), what the kernel counts of each
//! container, and which supervisors live.
//!
//! All of it is read from files when somebody asks: nobody is woken, and a container that is gone has no series.
mod families;
mod found;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plan::numbers::{Count, TOTALS, Total, Totals, Trap, Words};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};

use self::families::{FAMILIES, Sample, Value};
use self::found::Container;

pub use self::families::table;

/// Where the numbers come from.
#[derive(Debug)]
pub struct Numbers {
    /// Where processes are seen, `/proc`.
    proc: PathBuf,
    place: Mutex<Place>,
}

/// What is known from one time to the next.
#[derive(Debug, Default)]
struct Place {
    /// The run directory as it lies here; none before containerd was asked.
    run: Option<PathBuf>,
    /// The root of the host.
    root: PathBuf,
    /// Which file the totals were read from last.
    totals: Option<u64>,
    /// The largest sums that were told of it.
    told: Sums,
}

/// Sums of what the totals have, and the pages of containers that live. A container that ends goes from one to the other
/// in two steps; who looks in between finds it in neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    traps: [u64; Trap::ALL.len()],
    fuel: u64,
}

/// Everything at one time.
#[derive(Debug, Default)]
struct Node {
    totals: Totals,
    sums: Sums,
    containers: Vec<Container>,
    /// Supervisors of containers that are there: those that live, and those that do not.
    supervisors: [u64; 2],
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            place: Mutex::default(),
        }
    }
}

impl Numbers {
    /// From now on they are read there: the run directory, and the root of the host below which the kernel's files are.
    pub fn are_in(&self, run: PathBuf, root: PathBuf) {
        let mut place = self.place();
        place.run = Some(run);
        place.root = root;
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // It is whole after every statement.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Node {
        let mut place = self.place();
        let Some(run) = place.run.clone() else {
            return Node::default();
        };
        // Before the pages: what is folded meanwhile is missing and not there twice.
        let path = run.join(TOTALS);
        let file = fs::metadata(&path).ok().map(|meta| meta.ino());
        let totals = Totals(fs::read(&path).map_or_else(|_| Words::default(), |it| Words::of(&it)));
        let (containers, supervisors) = found::find(&run, &place.root, &self.proc);
        if file != place.totals {
            // Others than before: they began anew.
            place.totals = file;
            place.told = Sums::default();
        }
        let sums = Sums::of(&totals, &containers).or_more(&place.told);
        place.told = sums.clone();
        Node {
            totals,
            sums,
            containers,
            supervisors,
        }
    }
}

impl Sums {
    fn of(totals: &Totals, containers: &[Container]) -> Self {
        let all = |total: Total, count: Count| {
            let live = containers
                .iter()
                .filter_map(|container| container.page.as_ref())
                .map(|page| page.get(count));
            live.fold(totals.get(total), u64::saturating_add)
        };
        Self {
            traps: Trap::ALL.map(|trap| all(Total::Trapped(trap), Count::Trapped(trap))),
            fuel: all(Total::Fuel, Count::Fuel),
        }
    }

    fn or_more(mut self, other: &Self) -> Self {
        for (own, other) in self.traps.iter_mut().zip(other.traps) {
            *own = other.max(*own);
        }
        self.fuel = self.fuel.max(other.fuel);
        self
    }
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let node = self.read();
        let mut samples = Vec::new();
        for family in FAMILIES {
            samples.clear();
            (family.samples)(&node, &mut samples);
            let unit = family.unit.as_ref();
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, unit, family.kind)?;
            if let [Sample { labels, value }] = samples.as_slice()
                && labels.is_empty()
            {
                value.encode(&mut metric)?;
                continue;
            }
            for Sample { labels, value } in &samples {
                value.encode(&mut metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, metric: &mut MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Count(count) => metric.encode_counter::<NoLabelSet, _, u64>(count, None),
            Self::Sum(sum) => metric.encode_counter::<NoLabelSet, _, u64>(sum, None),
            Self::Level(level) => metric.encode_gauge(level),
            Self::Durations(seen) => {
                metric.encode_histogram::<NoLabelSet>(seen.seconds, seen.count, &seen.buckets, None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
