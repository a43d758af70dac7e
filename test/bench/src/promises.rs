//! What we promise of ourselves, against what a run found.

use crate::contestant::FLOOR_NAME;
use crate::figures::ratio;
use crate::measure::Density;
use crate::report::{DELETED, FIRST_BYTE, Pick, Report};
use crate::statistics::Samples;

/// A promise, its bounds in pod scope and in dense scope, and how to find what was reached.
struct Promise {
    what: &'static str,
    bounds: [f64; 2],
    kept: fn(f64, f64) -> bool,
    found: fn(&Report, &Side) -> Option<f64>,
}

/// The names of the contestants of one scope.
struct Side {
    name: &'static str,
    of_file: &'static str,
}

const SIDES: [Side; 2] = [
    Side {
        name: "sampan",
        of_file: "sampan-file",
    },
    Side {
        name: "sampan-dense",
        of_file: "sampan-dense-file",
    },
];

const AT_MOST: fn(f64, f64) -> bool = |found, bound| found <= bound;
const AT_LEAST: fn(f64, f64) -> bool = |found, bound| found >= bound;

const PROMISES: [Promise; 8] = [
    Promise {
        what: "create to first byte, warm, of the floor, at most",
        bounds: [1.3, 1.1],
        kept: AT_MOST,
        found: |report, side| median_ratio(report, FIRST_BYTE, side.name, FLOOR_NAME),
    },
    Promise {
        what: "create to deleted, of the floor, at most",
        bounds: [1.3, 1.1],
        kept: AT_MOST,
        found: |report, side| median_ratio(report, DELETED, side.name, FLOOR_NAME),
    },
    Promise {
        what: "a file of a rootfs, of a layer, to first byte, at most",
        bounds: [1.15, 1.15],
        kept: AT_MOST,
        found: |report, side| median_ratio(report, FIRST_BYTE, side.of_file, side.name),
    },
    Promise {
        what: "a Python component of 30 MB to its first byte, of hello's, at most",
        bounds: [1.5, 1.5],
        kept: AT_MOST,
        found: |report, side| {
            let of = |program| {
                let mut all = report.real.iter();
                let real = all.find(|real| (real.contestant, real.program) == (side.name, program));
                real.and_then(|real| real.first_byte.median())
            };
            ratio(of("Python, 30 MB"), of("hello"))
        },
    },
    Promise {
        what: "MB PSS per pod among 50, at most",
        bounds: [2.0, 0.8],
        kept: AT_MOST,
        found: |report, side| {
            let density = density(report, side.name, |density| density.pods == 50)?;
            Some(density.pss_mb())
        },
    },
    Promise {
        what: "MB of MemAvailable per pod among 200, at most",
        bounds: [4.0, 2.0],
        kept: AT_MOST,
        found: |report, side| {
            let density = density(report, side.name, |density| density.pods >= 200)?;
            Some(density.available_mb())
        },
    },
    Promise {
        what: "PSS per pod with an idle Python or JavaScript server, of the baseline's, at most",
        bounds: [0.2, 0.2],
        kept: AT_MOST,
        found: |report, side| {
            let pss = |contestant, program| {
                let mut all = report.real.iter();
                let real =
                    all.find(|real| (real.contestant, real.program) == (contestant, program));
                Some(real?.density.as_ref()?.pss_mb())
            };
            ["Python http", "JavaScript http"]
                .into_iter()
                .filter_map(|program| ratio(pss(side.name, program), pss("baseline", program)))
                .max_by(f64::total_cmp)
        },
    },
    Promise {
        what: "pods per second, 4 at once, of runc's, at least",
        bounds: [3.0, 4.0],
        kept: AT_LEAST,
        found: |report, side| {
            let of = |name| {
                let density = density(report, name, |density| density.at_once == 4)?;
                Some(density.pods_per_second())
            };
            ratio(of(side.name), of("runc"))
        },
    },
];

fn median_ratio(report: &Report, pick: Pick, name: &str, other: &str) -> Option<f64> {
    let median = |name| report.samples(name, pick).and_then(Samples::median);
    ratio(median(name), median(other))
}

fn density<'r>(
    report: &'r Report,
    name: &str,
    wanted: fn(&Density) -> bool,
) -> Option<&'r Density> {
    let mut densities = report.find(name)?.typical_densities().into_iter();
    densities.find(|density| wanted(density))
}

/// A line for each promise that this run can tell something of.
pub(crate) fn render(report: &Report) -> String {
    let mut text = String::new();
    for (place, side) in SIDES.iter().enumerate() {
        for promise in &PROMISES {
            let Some(found) = (promise.found)(report, side) else {
                continue;
            };
            let bound = promise.bounds[place];
            let verdict = if (promise.kept)(found, bound) {
                "kept:  "
            } else {
                "BROKEN:"
            };
            text.push_str(&format!(
                "{verdict} {}, {} {bound} (found {found:.2})\n",
                side.name, promise.what
            ));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n{text}")
    }
}
