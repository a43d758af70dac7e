//! A profile in the forms in which people and tools read it.

use std::collections::{BTreeMap, BTreeSet};

use fxprof_processed_profile as firefox_profiler;
use serde::Serialize;

use crate::failure::{Failure, Kind, Outcome};
use crate::observed::Process;
use crate::output::{Text, strong};
use crate::profile::sampling::Looked;
use crate::profile::stacks::Stacks;

/// Functions of a table for people.
const ROWS: usize = 30;

/// The functions, the busiest first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table {
    guest: String,
    pid: i32,
    seconds: f64,
    /// Samples for each second in which a thread ran.
    frequency: u32,
    samples: usize,
    lost: u64,
    threads: usize,
    functions: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    /// Samples in which it was running itself.
    own: usize,
    /// Samples in which it, or what it had called, was running.
    total: usize,
}

impl Table {
    pub(super) fn of(
        stacks: &Stacks<'_>,
        process: &Process,
        looked: &Looked,
        frequency: u32,
    ) -> Self {
        Self {
            guest: process.name.clone(),
            pid: process.pid,
            seconds: looked.time.as_secs_f64(),
            frequency,
            samples: stacks.samples().len(),
            lost: looked.lost,
            threads: looked.threads.len(),
            functions: rows(stacks),
        }
    }

    pub(super) fn text(&self) -> Text {
        let mut text = Text::default();
        text.line(format!(
            "{}: {} samples in {:.1} s, at {} a second",
            self.guest, self.samples, self.seconds, self.frequency
        ));
        text.line(strong(&format!("{:>8}  {:>8}  FUNCTION", "OWN", "TOTAL")));
        let share = |count: usize| format!("{:.1} %", 100.0 * count as f64 / self.samples as f64);
        for row in self.functions.iter().take(ROWS) {
            text.line(format!(
                "{:>8}  {:>8}  {}",
                share(row.own),
                share(row.total),
                row.name
            ));
        }
        if self.functions.len() > ROWS {
            text.line(format!("and {} others", self.functions.len() - ROWS));
        }
        text
    }
}

fn rows(stacks: &Stacks<'_>) -> Vec<Row> {
    let mut counts = vec![(0, 0); stacks.names().len()];
    for sample in stacks.samples() {
        if let Some(innermost) = sample.frames.last() {
            counts[*innermost].0 += 1;
        }
        // A function that calls itself is there once.
        for frame in sample.frames.iter().collect::<BTreeSet<_>>() {
            counts[*frame].1 += 1;
        }
    }
    let mut rows: Vec<_> = stacks
        .names()
        .iter()
        .zip(counts)
        .map(|(name, (own, total))| Row {
            name: name.clone(),
            own,
            total,
        })
        .collect();
    rows.sort_by(|a, b| (b.own, b.total, &a.name).cmp(&(a.own, a.total, &b.name)));
    rows
}

/// `OUTERMOST;...;INNERMOST COUNT`.
pub(super) fn folded(stacks: &Stacks<'_>) -> Vec<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for sample in stacks.samples() {
        let names = sample.frames.iter().map(|frame| {
            // What separates stands in names of generic functions.
            stacks.names()[*frame].replace(';', ":")
        });
        let line = names.collect::<Vec<_>>().join(";");
        *counts.entry(line).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(line, count)| format!("{line} {count}"))
        .collect()
}

pub(super) fn flame_graph(stacks: &Stacks<'_>, name: &str) -> Outcome<Vec<u8>> {
    let mut options = inferno::flamegraph::Options::default();
    name.clone_into(&mut options.title);
    // The same profile gives the same picture.
    options.deterministic = true;
    let mut svg = Vec::new();
    let lines = folded(stacks);
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|error| Failure::at(Kind::System, "cannot draw the profile", error))?;
    Ok(svg)
}

/// Firefox Profiler's processed format.
pub(super) fn firefox(
    stacks: &Stacks<'_>,
    process: &Process,
    threads: &BTreeMap<u32, String>,
    frequency: u32,
) -> Outcome<Vec<u8>> {
    use firefox_profiler::{
        CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, Profile, SamplingInterval,
        Timestamp,
    };
    let interval = SamplingInterval::from_hz(frequency as f32);
    let mut profile = Profile::new(&process.name, stacks.begun.into(), interval);
    // Names are all there is; nobody has to ask for others.
    profile.set_symbolicated(true);
    let pid = process.pid.unsigned_abs();
    let zero = Timestamp::from_nanos_since_reference(0);
    let handle = profile.add_process(&process.name, pid, zero);
    let used: BTreeSet<u32> = stacks
        .samples()
        .iter()
        .map(|sample| sample.thread)
        .collect();
    let first = stacks
        .samples()
        .iter()
        .map(|sample| sample.time)
        .min()
        .unwrap_or(0);
    for thread in used {
        let of_profile = profile.add_thread(handle, thread, zero, thread == pid);
        let name = threads.get(&thread).map_or("", String::as_str);
        profile.set_thread_name(of_profile, name);
        let own = stacks
            .samples()
            .iter()
            .filter(|sample| sample.thread == thread);
        for sample in own {
            let frames: Vec<_> = sample
                .frames
                .iter()
                .map(|frame| FrameInfo {
                    frame: Frame::Label(profile.intern_string(&stacks.names()[*frame])),
                    category_pair: CategoryHandle::OTHER.into(),
                    flags: FrameFlags::empty(),
                })
                .collect();
            let stack = profile.intern_stack_frames(of_profile, frames.into_iter());
            let time = Timestamp::from_nanos_since_reference(sample.time - first);
            let used = CpuDelta::from_nanos(interval.nanos());
            profile.add_sample(of_profile, time, stack, used, 1);
        }
    }
    serde_json::to_vec(&profile)
        .map_err(|error| Failure::at(Kind::System, "cannot write the profile", error))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::code::Code;
    use crate::profile::sampling::Sample;

    fn with(check: impl FnOnce(&Stacks<'_>)) {
        let code = Code::made(&[(0x1000, "main"), (0x1010, "a;b"), (0x1020, "hot")]);
        let mut stacks = Stacks::new(&code, SystemTime::UNIX_EPOCH);
        let mut add = |thread, in_kernel, stack: &[u64]| {
            stacks.add(&Sample {
                thread,
                time: 5,
                stack: stack.to_vec(),
                in_kernel,
            });
        };
        // A call at the very end of `a;b` returns to where `hot` begins.
        add(1, false, &[0x1025, 0x1020, 0x1005, 0x9_0000, 0x9_1000]);
        add(1, false, &[0x1025, 0x1028, 0x1020, 0x1005]);
        add(1, true, &[0x9_0000, 0x9_1000, 0x1015, 0x1005, 0x9_0000]);
        add(2, false, &[0x9_0000]);
        check(&stacks);
    }

    #[test]
    fn stacks_are_folded() {
        with(|stacks| {
            assert_eq!(
                folded(stacks),
                [
                    "[host] 1",
                    "main;a:b;[host];[kernel] 1",
                    "main;a:b;hot 1",
                    "main;a:b;hot;hot 1",
                ]
            );
        });
    }

    #[test]
    fn the_busiest_function_comes_first_and_counts_once() {
        with(|stacks| {
            let rows: Vec<_> = rows(stacks)
                .into_iter()
                .map(|row| (row.name, row.own, row.total))
                .collect();
            let row = |name: &str, own, total| (name.to_owned(), own, total);
            assert_eq!(
                rows,
                [
                    row("hot", 2, 2),
                    row("[host]", 1, 2),
                    row("[kernel]", 1, 1),
                    row("a;b", 0, 3),
                    row("main", 0, 3),
                ]
            );
        });
    }

    #[test]
    fn pictures_and_documents_have_the_names() {
        with(|stacks| {
            let svg = flame_graph(stacks, "shop/<web>").expect("drawn");
            let svg = String::from_utf8(svg).expect("text");
            assert!(
                svg.contains("shop/&lt;web&gt;") && svg.contains("hot"),
                "{svg}"
            );
            let process = Process::named("web", 1);
            let threads = [(1, "main".to_owned()), (2, "other".to_owned())].into();
            let json = firefox(stacks, &process, &threads, 99).expect("written");
            let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            let threads = json["threads"].as_array().expect("threads");
            let names: Vec<_> = threads.iter().map(|thread| &thread["name"]).collect();
            // The main thread has the name of the process.
            assert_eq!(names, ["web", "other"]);
            assert!(json.to_string().contains("\"hot\""), "{json}");
        });
    }
}
