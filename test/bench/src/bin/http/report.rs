//! The tables.

use std::fmt::Write as _;

use crate::alive;
use crate::compare::{At, Measured, Results};

/// What a side is compared with: the better of the first that are there.
fn yardsticks(name: &str) -> &'static [&'static str] {
    match name {
        "sampan" | "sampan-log" => &["wasmtime", "baseline"],
        "sampan-reuse" => &["wasmtime-reuse"],
        _ => &[],
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl At {
    fn median(&self, of: impl Fn(&crate::load::Load) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }
}

/// Requests per second as a multiple of the yardstick's in the same round: the least, the median and the most of the
/// rounds. The yardstick is the one with the better median.
fn ratio(sides: &[Measured], name: &str, place: usize) -> Option<(f64, f64, f64)> {
    let of = |name: &str| sides.iter().find(|side| side.name == name)?.at.get(place);
    let own = of(name)?;
    let speed = |at: &&At| at.median(crate::load::Load::per_second);
    let best = yardsticks(name)
        .iter()
        .filter_map(|name| of(name))
        .max_by(|one, two| speed(one).total_cmp(&speed(two)))?;
    let mut ratios: Vec<f64> = own
        .rounds
        .iter()
        .zip(&best.rounds)
        .map(|(own, best)| own.per_second() / best.per_second())
        .collect();
    ratios.sort_by(f64::total_cmp);
    Some((*ratios.first()?, median(ratios.clone()), *ratios.last()?))
}

pub(crate) fn compared(results: &Results) -> String {
    let mut text = format!(
        "GET {}, Linux {}, {} processors, which the client shares\n",
        results.path, results.kernel, results.cpus
    );
    let places = results.sides.first().map_or(0, |side| side.at.len());
    for place in 0..places {
        let connections = results.sides[0].at[place].connections;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\n{connections} connections\n  {:<16}{:>10}{:>10}{:>10}{:>10}  of the better peer, round by round",
            "", "per s", "p50 us", "p99 us", "p99.9 us"
        );
        for side in &results.sides {
            let at = &side.at[place];
            let of = ratio(&results.sides, &side.name, place)
                .map(|(least, median, most)| format!("  {median:.2} ({least:.2} to {most:.2})"));
            let _ = writeln!(
                text,
                "  {:<16}{:>10.0}{:>10.0}{:>10.0}{:>10.0}{}",
                side.name,
                at.median(crate::load::Load::per_second),
                at.median(|load| load.p50),
                at.median(|load| load.p99),
                at.median(|load| load.p999),
                of.unwrap_or_default()
            );
        }
    }
    for (name, reason) in &results.absent {
        let _ = writeln!(text, "\n{name} was not measured: {reason}");
    }
    text
}

pub(crate) fn alive(results: &alive::Results) -> String {
    let mut text = format!(
        "{} requests at the same moment, each with an instance of its own, after {:.1} s\n\n  {:<18}{:>12}{:>12}{:>12}{:>16}\n",
        results.requests, results.seconds, "", "before", "during", "after", "per request"
    );
    let each = |before: u64, during: u64| during.abs_diff(before) as f64 / results.requests as f64;
    let of = |value: fn(&alive::Memory) -> u64| {
        (
            value(&results.before),
            value(&results.during),
            value(&results.after),
        )
    };
    let mega = |bytes: u64| bytes as f64 / 1e6;
    for (name, (before, during, after)) in [
        ("PSS, MB", of(|memory| memory.pss)),
        ("page tables, MB", of(|memory| memory.page_tables)),
        ("MemAvailable, MB", of(|memory| memory.available)),
    ] {
        let _ = writeln!(
            text,
            "  {name:<18}{:>12.1}{:>12.1}{:>12.1}{:>13.1} kB",
            mega(before),
            mega(during),
            mega(after),
            each(before, during) / 1e3
        );
    }
    for (name, (before, during, after)) in [
        ("mappings", of(|memory| memory.mappings as u64)),
        ("descriptors", of(|memory| memory.descriptors as u64)),
    ] {
        let _ = writeln!(
            text,
            "  {name:<18}{before:>12}{during:>12}{after:>12}{:>16.1}",
            each(before, during)
        );
    }
    text
}
