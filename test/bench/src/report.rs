//! What a run found: as tables for people, as JSON with every sample for machines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cold::Start;
use crate::contestant::FLOOR_NAME;
use crate::figures::{Table, decimal, hundredths, interval, multiple, ratio};
use crate::life::Phase;
use crate::measure::{Density, Latency, Throughput};
use crate::promises;
use crate::real::Real;
use crate::spans::Steps;
use crate::statistics::Samples;

/// One contestant's results. What was not measured says why in `absent`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) name: &'static str,
    pub(crate) absent: Option<String>,
    pub(crate) latency: Option<Latency>,
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) densities: Vec<Density>,
    /// Of a run of its own, in which the steps were written down.
    pub(crate) steps: Steps,
    /// The latencies of that run.
    pub(crate) logged_latency: Option<Latency>,
    /// Measurements that broke off, and why.
    pub(crate) failures: Vec<String>,
}

impl Results {
    pub(crate) fn fail(&mut self, measurement: &str, error: &anyhow::Error) {
        self.failures.push(format!("{measurement}: {error:#}"));
    }

    /// One for so many pods with so many at a time: where there were rounds of it, the one that took the median time.
    pub(crate) fn typical_densities(&self) -> Vec<&Density> {
        let mut kinds: BTreeMap<_, Vec<&Density>> = BTreeMap::new();
        for density in &self.densities {
            let kind = kinds.entry((density.pods, density.at_once));
            kind.or_default().push(density);
        }
        kinds
            .into_values()
            .map(|mut rounds| {
                rounds.sort_by(|one, other| one.up_within_s.total_cmp(&other.up_within_s));
                rounds[(rounds.len() - 1) / 2]
            })
            .collect()
    }
}

/// Where and when.
#[derive(Debug, Default, Serialize)]
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

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) contestants: Vec<Results>,
    pub(crate) real: Vec<Real>,
    /// Programs that were not measured, because nobody has built them.
    pub(crate) missing_programs: Vec<&'static str>,
    pub(crate) cold: Vec<Start>,
}

/// Picks the samples of a table.
pub(crate) type Pick = fn(&Latency) -> &Samples;

/// From the request to create the task to the first byte.
pub(crate) const FIRST_BYTE: Pick = |latency| &latency.first_byte;
/// From the request to create the task to its deletion.
pub(crate) const DELETED: Pick = |latency| &latency.deleted;

impl Report {
    /// The results of a contestant, made if there are none.
    pub(crate) fn of(&mut self, name: &'static str) -> &mut Results {
        let place = self
            .contestants
            .iter()
            .position(|results| results.name == name);
        let place = place.unwrap_or_else(|| {
            self.contestants.push(Results {
                name,
                ..Results::default()
            });
            self.contestants.len() - 1
        });
        &mut self.contestants[place]
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Results> {
        self.contestants.iter().find(|results| results.name == name)
    }

    pub(crate) fn samples(&self, name: &str, pick: Pick) -> Option<&Samples> {
        let latency = self.find(name)?.latency.as_ref()?;
        Some(pick(latency)).filter(|samples| samples.len() > 0)
    }

    /// Each contestant with its latencies.
    pub(crate) fn measured(&self, pick: Pick) -> Vec<(&'static str, &Samples)> {
        self.contestants
            .iter()
            .filter_map(|results| Some((results.name, self.samples(results.name, pick)?)))
            .collect()
    }

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
        text.push_str("In parentheses: 95 % confidence, by bootstrap of the rounds\n");
        for (title, pick) in [
            ("Task create to first byte on stdout, ms", FIRST_BYTE),
            ("Task create to task deleted, ms", DELETED),
        ] {
            text.push_str(&self.latencies(title, pick));
            text.push_str(&self.pairs(pick));
        }
        text.push_str(&self.phases());
        text.push_str(&self.steps());
        text.push_str(&self.throughputs());
        text.push_str(&self.densities());
        text.push_str(&self.real());
        text.push_str(&self.cold());
        text.push_str(&promises::render(self));
        for (who, failure) in self.failures() {
            text.push_str(&format!("\nFAILED: {who}, {failure}\n"));
        }
        text
    }

    pub(crate) fn has_failures(&self) -> bool {
        !self.failures().is_empty()
    }

    fn failures(&self) -> Vec<(String, String)> {
        let of_contestants = self.contestants.iter().flat_map(|results| {
            let failures = results.failures.iter();
            failures.map(|failure| (results.name.to_owned(), failure.clone()))
        });
        let of_programs = self.real.iter().flat_map(|real| {
            let who = format!("{} of {}", real.program, real.contestant);
            let failures = real.failures.iter();
            failures.map(move |failure| (who.clone(), failure.clone()))
        });
        let of_cold = self.cold.iter().filter_map(|start| {
            let failure = start.failure.as_ref()?;
            let who = format!("{}, {}", start.contestant, start.cold.title());
            Some((who, format!("{failure:#}")))
        });
        of_contestants.chain(of_programs).chain(of_cold).collect()
    }

    fn latencies(&self, title: &str, pick: Pick) -> String {
        if self.measured(pick).is_empty() {
            return String::new();
        }
        let floor = self.samples(FLOOR_NAME, pick);
        let mut table = Table::new(&["", "n", "median", "p95", "p99", "of the floor"]);
        for results in &self.contestants {
            let Some(samples) = self.samples(results.name, pick) else {
                table.row(absent(results));
                continue;
            };
            table.row(vec![
                results.name.to_owned(),
                samples.len().to_string(),
                interval(samples.estimate()),
                decimal(samples.quantile(0.95)),
                decimal(samples.quantile(0.99)),
                multiple(floor.and_then(|floor| samples.ratio_to(floor))),
            ]);
        }
        format!("\n{title}\n{}", table.render())
    }

    /// Each contestant as a multiple of each other one.
    fn pairs(&self, pick: Pick) -> String {
        let measured = self.measured(pick);
        if measured.len() < 3 {
            return String::new();
        }
        let mut head = vec!["as a multiple of"];
        head.extend(measured.iter().map(|(name, _)| *name));
        let mut table = Table::new(&head);
        for (name, samples) in &measured {
            let mut row = vec![(*name).to_owned()];
            row.extend(measured.iter().map(|(other, below)| {
                if other == name {
                    String::new()
                } else {
                    multiple(samples.ratio_to(below))
                }
            }));
            table.row(row);
        }
        format!("\n{}", table.render())
    }

    fn phases(&self) -> String {
        if self.measured(FIRST_BYTE).is_empty() {
            return String::new();
        }
        let mut head = vec![""];
        head.extend(Phase::ALL.map(Phase::name));
        let mut table = Table::new(&head);
        for results in &self.contestants {
            let Some(latency) = &results.latency else {
                continue;
            };
            let mut row = vec![results.name.to_owned()];
            row.extend(
                Phase::ALL
                    .map(|phase| hundredths(latency.phases.of(phase).and_then(Samples::median))),
            );
            table.row(row);
        }
        format!(
            "\nPhases, median ms (start and first byte both count from the request to start)\n{}",
            table.render()
        )
    }

    fn steps(&self) -> String {
        let mut text = String::new();
        for results in &self.contestants {
            if results.steps.is_empty() {
                continue;
            }
            let mut table = Table::new(&["", "n", "median", "p95"]);
            let mut row = |name: String, samples: &Samples| {
                table.row(vec![
                    name,
                    samples.len().to_string(),
                    hundredths(samples.median()),
                    hundredths(samples.quantile(0.95)),
                ]);
            };
            if let Some(latency) = &results.logged_latency {
                for phase in [Phase::Create, Phase::Start, Phase::FirstByte, Phase::Delete] {
                    if let Some(samples) = latency.phases.of(phase) {
                        row(
                            format!("as containerd's client sees it: {}", phase.name()),
                            samples,
                        );
                    }
                }
            }
            for (path, samples) in results.steps.all() {
                let depth = path.matches(':').count();
                let name = path.rsplit(':').next().unwrap_or(path);
                row(format!("{}{name}", "  ".repeat(depth)), samples);
            }
            text.push_str(&format!(
                "\nInside {}, ms, in rounds of their own with logging at level debug\n{}",
                results.name,
                table.render()
            ));
        }
        text
    }

    fn throughputs(&self) -> String {
        let Some(widest) = self
            .contestants
            .iter()
            .map(|results| &results.throughput)
            .max_by_key(|throughput| throughput.len())
            .filter(|throughput| !throughput.is_empty())
        else {
            return String::new();
        };
        let mut head = vec![String::new()];
        let at_once: Vec<usize> = widest.iter().map(|throughput| throughput.at_once).collect();
        head.extend(at_once.iter().map(|at_once| format!("{at_once} at once")));
        let mut table = Table::new(&head);
        for results in &self.contestants {
            if results.throughput.is_empty() {
                table.row(absent(results));
                continue;
            }
            let mut row = vec![results.name.to_owned()];
            row.extend(at_once.iter().map(|&at_once| {
                let mut measured = results.throughput.iter();
                let found = measured.find(|throughput| throughput.at_once == at_once);
                decimal(found.map(|throughput| throughput.tasks_per_second))
            }));
            table.row(row);
        }
        format!("\nTasks per second, create to deleted\n{}", table.render())
    }

    fn densities(&self) -> String {
        let mut table = Table::new(&[
            "",
            "pods",
            "at once",
            "PSS MB",
            "of MemAvailable MB",
            "processes",
            "threads",
            "pods per second",
            "all down, s",
        ]);
        let mut rows = 0;
        for results in &self.contestants {
            for density in results.typical_densities() {
                rows += 1;
                table.row(density_row(results.name, density));
            }
        }
        if rows == 0 {
            return String::new();
        }
        format!(
            "\nPer pod (shim, helpers, pause container, guest); of several rounds the one of median time\n{}",
            table.render()
        )
    }

    fn real(&self) -> String {
        if self.real.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&[
            "",
            "",
            "MB",
            "first byte ms",
            "of hello",
            "of baseline",
            "PSS MB per pod",
            "of baseline",
        ]);
        for real in &self.real {
            let other = |contestant: &str, program: &str| {
                self.real
                    .iter()
                    .find(|other| (other.contestant, other.program) == (contestant, program))
            };
            let against = |other: Option<&Real>| {
                multiple(other.and_then(|other| real.first_byte.ratio_to(&other.first_byte)))
            };
            let baseline = other("baseline", real.program);
            let pss = |real: &Real| real.density.as_ref().map(Density::pss_mb);
            #[allow(clippy::cast_precision_loss, reason = "megabytes")]
            table.row(vec![
                real.program.to_owned(),
                real.contestant.to_owned(),
                decimal(Some(real.size as f64 / 1e6)),
                interval(real.first_byte.estimate()),
                against(other(real.contestant, "hello")),
                against(baseline),
                hundredths(pss(real)),
                hundredths(ratio(pss(real), baseline.and_then(pss))),
            ]);
        }
        let mut text = format!(
            "\nPrograms, warm; servers until their first answer\n{}",
            table.render()
        );
        if !self.missing_programs.is_empty() {
            text.push_str(&format!(
                "  not built (`cargo xtask guests`): {}\n",
                self.missing_programs.join(", ")
            ));
        }
        text
    }

    fn cold(&self) -> String {
        if self.cold.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["", "", "n", "first byte ms", "p95", "warm"]);
        for start in &self.cold {
            let warm = self.samples(start.contestant, FIRST_BYTE);
            table.row(vec![
                start.cold.title().to_owned(),
                start.contestant.to_owned(),
                start.first_byte.len().to_string(),
                interval(start.first_byte.estimate()),
                decimal(start.first_byte.quantile(0.95)),
                decimal(warm.and_then(Samples::median)),
            ]);
        }
        format!("\nCold starts of hello\n{}", table.render())
    }
}

#[allow(clippy::cast_precision_loss, reason = "some thousand processes")]
fn density_row(name: &str, density: &Density) -> Vec<String> {
    vec![
        name.to_owned(),
        density.pods.to_string(),
        density.at_once.to_string(),
        hundredths(Some(density.pss_mb())),
        hundredths(Some(density.available_mb())),
        decimal(Some(density.per_pod(density.total.processes as f64))),
        decimal(Some(density.per_pod(density.total.threads as f64))),
        decimal(Some(density.pods_per_second())),
        decimal(Some(density.down_within_s)),
    ]
}

fn absent(results: &Results) -> Vec<String> {
    let reason = results.absent.as_deref().unwrap_or("not measured");
    vec![results.name.to_owned(), reason.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::Results;
    use crate::footprint::Footprint;
    use crate::measure::Density;

    #[test]
    fn of_rounds_the_one_of_median_time_counts() {
        let density = |at_once, up_within_s| Density {
            pods: 50,
            at_once,
            total: Footprint::default(),
            available_kb: 0,
            up_within_s,
            down_within_s: 0.0,
        };
        let results = Results {
            densities: vec![
                density(1, 9.0),
                density(4, 3.0),
                density(4, 1.0),
                density(4, 2.0),
            ],
            ..Results::default()
        };
        let found: Vec<_> = results
            .typical_densities()
            .into_iter()
            .map(|density| (density.at_once, density.up_within_s))
            .collect();
        assert_eq!(found, [(1, 9.0), (4, 2.0)]);
    }
}
