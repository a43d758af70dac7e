//! What a run found: as tables for people, as JSON with every sample for machines.

use serde::Serialize;

use crate::figures::{Table, decimal, ratio};
use crate::measure::{Density, Latency, Throughput};

/// One contestant's results. What was not measured says why in `absent`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) name: &'static str,
    pub(crate) absent: Option<String>,
    pub(crate) latency: Option<Latency>,
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) density: Option<Density>,
    /// Measurements that broke off, and why.
    pub(crate) failures: Vec<String>,
}

impl Results {
    pub(crate) fn fail(&mut self, measurement: &str, error: &anyhow::Error) {
        self.failures.push(format!("{measurement}: {error:#}"));
    }
}

/// Where and when.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) containerd: String,
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    /// Load averages of the last minute before and after: figures of a busy machine are worth less.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    pub(crate) rounds: usize,
    pub(crate) warm_ups: usize,
    pub(crate) guest_native_bytes: usize,
    pub(crate) guest_wasm_bytes: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) contestants: Vec<Results>,
}

const MOST_TIMES_THE_FLOOR: f64 = 2.0;
const MOST_PSS_MB: f64 = 4.0;

/// Picks the samples of a table.
type Pick = fn(&Latency) -> &crate::figures::Samples;

impl Report {
    pub(crate) fn render(&self) -> String {
        let conditions = &self.conditions;
        let mut text = format!(
            "containerd {}, kernel {}, {} cpus, load {:.1} before and {:.1} after; guest: native {} kB, wasm {} kB\n",
            conditions.containerd,
            conditions.kernel,
            conditions.cpus,
            conditions.load_before,
            conditions.load_after,
            conditions.guest_native_bytes / 1024,
            conditions.guest_wasm_bytes / 1024,
        );
        text.push_str(
            &self.latencies("Task create to first byte on stdout, ms", |latency| {
                &latency.first_byte
            }),
        );
        text.push_str(
            &self.latencies("Task create to task deleted, ms", |latency| {
                &latency.deleted
            }),
        );
        text.push_str(&self.steps());
        text.push_str(&self.throughputs());
        text.push_str(&self.densities());
        text.push_str(&self.promises());
        for side in &self.contestants {
            for failure in &side.failures {
                text.push_str(&format!("\nFAILED: {}, {failure}\n", side.name));
            }
        }
        text
    }

    pub(crate) fn has_failures(&self) -> bool {
        self.contestants
            .iter()
            .any(|side| !side.failures.is_empty())
    }

    /// What we promise of ourselves, against what this run found. Nothing where it was not measured.
    fn promises(&self) -> String {
        let Some(ours) = self.contestants.iter().find(|side| side.name == "sampan") else {
            return String::new();
        };
        let multiple = ours
            .latency
            .as_ref()
            .and_then(|latency| latency.first_byte.median())
            .zip(self.floor(|latency| &latency.first_byte))
            .map(|(ours, floor)| ours / floor);
        let pss = ours
            .density
            .map(|density| density.per_pod(density.total.pss_kb) / 1024.0);
        let verdict = |promise: &str, found: Option<f64>, bound: f64| match found {
            Some(found) if found <= bound => format!("kept:   {promise} (found {found:.2})\n"),
            Some(found) => format!("BROKEN: {promise} (found {found:.2})\n"),
            None => String::new(),
        };
        format!(
            "\n{}{}",
            verdict(
                "create to first byte, warm, at most 2.0 times the floor",
                multiple,
                MOST_TIMES_THE_FLOOR
            ),
            verdict("at most 4 MB PSS per pod", pss, MOST_PSS_MB),
        )
    }

    fn floor(&self, pick: Pick) -> Option<f64> {
        let floor = self.contestants.iter().find(|side| side.name == "floor")?;
        pick(floor.latency.as_ref()?).median()
    }

    fn latencies(&self, title: &str, pick: Pick) -> String {
        let floor = self.floor(pick);
        let mut table = Table::new(&["", "n", "median", "p95", "p99", "of the floor"]);
        for side in &self.contestants {
            let Some(latency) = &side.latency else {
                table.row(absent(side));
                continue;
            };
            let samples = pick(latency);
            table.row(vec![
                side.name.to_owned(),
                samples.len().to_string(),
                decimal(samples.median()),
                decimal(samples.quantile(0.95)),
                decimal(samples.quantile(0.99)),
                ratio(samples.median(), floor),
            ]);
        }
        format!("\n{title}\n{}", table.render())
    }

    fn steps(&self) -> String {
        let mut table = Table::new(&[
            "",
            "snapshot",
            "record",
            "create",
            "start",
            "first byte",
            "deleted",
        ]);
        for side in &self.contestants {
            let Some(latency) = &side.latency else {
                continue;
            };
            table.row(vec![
                side.name.to_owned(),
                decimal(latency.snapshot.median()),
                decimal(latency.record.median()),
                decimal(latency.created.median()),
                decimal(latency.started.median()),
                decimal(latency.first_byte.median()),
                decimal(latency.deleted.median()),
            ]);
        }
        format!(
            "\nSteps, median ms (snapshot and record are containerd's own work before the task; the others count from create)\n{}",
            table.render()
        )
    }

    fn throughputs(&self) -> String {
        let Some(widest) = self
            .contestants
            .iter()
            .map(|side| &side.throughput)
            .max_by_key(|throughput| throughput.len())
            .filter(|throughput| !throughput.is_empty())
        else {
            return String::new();
        };
        let head: Vec<String> = widest
            .iter()
            .map(|throughput| format!("{} at once", throughput.at_once))
            .collect();
        let mut columns = vec![""];
        columns.extend(head.iter().map(String::as_str));
        let mut table = Table::new(&columns);
        for side in &self.contestants {
            if side.throughput.is_empty() {
                table.row(absent(side));
                continue;
            }
            let mut row = vec![side.name.to_owned()];
            row.extend(
                side.throughput
                    .iter()
                    .map(|throughput| decimal(Some(throughput.tasks_per_second))),
            );
            table.row(row);
        }
        format!("\nTasks per second, create to deleted\n{}", table.render())
    }

    fn densities(&self) -> String {
        let Some(pods) = self
            .contestants
            .iter()
            .find_map(|side| Some(side.density?.pods))
        else {
            return String::new();
        };
        let mut table = Table::new(&["", "PSS MB", "processes", "threads", "all up, s"]);
        for side in &self.contestants {
            let Some(density) = &side.density else {
                table.row(absent(side));
                continue;
            };
            table.row(vec![
                side.name.to_owned(),
                format!("{:.2}", density.per_pod(density.total.pss_kb) / 1024.0),
                decimal(Some(density.per_pod(density.total.processes))),
                decimal(Some(density.per_pod(density.total.threads))),
                decimal(Some(density.up_within_s)),
            ]);
        }
        format!(
            "\nPer pod, at {pods} pods (shim, helpers, pause container, guest)\n{}",
            table.render()
        )
    }
}

fn absent(side: &Results) -> Vec<String> {
    let reason = side.absent.as_deref().unwrap_or("not measured");
    vec![side.name.to_owned(), reason.to_owned()]
}
