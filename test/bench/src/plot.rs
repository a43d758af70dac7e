//! The report as pictures: rows of bars and dots over one axis, as SVG that a browser and a repository's page show alike.

mod svg;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::svg::{Chart, Mark, Row};
use crate::life::Phase;
use crate::measure::Density;
use crate::report::{DELETED, FIRST_BYTE, Pick, Report};
use crate::statistics::Samples;

/// Writes every plot for which there are figures into `directory`, and returns where they are.
pub(crate) fn write(report: &Report, directory: &Path) -> Result<Vec<PathBuf>> {
    let charts = [
        (
            "first-byte.svg",
            latencies(report, "Task create to first byte, ms", FIRST_BYTE),
        ),
        (
            "deleted.svg",
            latencies(report, "Task create to task deleted, ms", DELETED),
        ),
        ("phases.svg", phases(report)),
        ("memory.svg", memory(report)),
        ("programs.svg", programs(report)),
    ];
    let mut written = Vec::new();
    for (name, chart) in charts {
        if chart.rows.is_empty() {
            continue;
        }
        std::fs::create_dir_all(directory).with_context(|| format!("create {directory:?}"))?;
        let path = directory.join(name);
        std::fs::write(&path, chart.render()).with_context(|| format!("write {path:?}"))?;
        written.push(path);
    }
    Ok(written)
}

/// Every sample as a dot, the median as a line with its interval.
fn latencies(report: &Report, title: &str, pick: Pick) -> Chart {
    let row = |(name, samples): (&'static str, &Samples)| {
        let mut marks: Vec<Mark> = samples.all().iter().copied().map(Mark::Dot).collect();
        if let Some(median) = samples.estimate() {
            marks.push(Mark::Interval(median.low, median.high));
            marks.push(Mark::Line(median.value));
        }
        Row {
            label: name.to_owned(),
            value: samples.median(),
            marks,
        }
    };
    Chart {
        title: title.to_owned(),
        legend: Vec::new(),
        rows: report.measured(pick).into_iter().map(row).collect(),
    }
}

/// The medians of the phases from create to delete, one behind the other.
fn phases(report: &Report) -> Chart {
    const SHOWN: [Phase; 4] = [Phase::Create, Phase::FirstByte, Phase::Exit, Phase::Delete];
    let rows = report.contestants.iter().filter_map(|results| {
        let latency = results.latency.as_ref()?;
        let (mut end, mut marks) = (0.0, Vec::new());
        for (color, phase) in SHOWN.into_iter().enumerate() {
            let from = end;
            end += latency.phases.of(phase).and_then(Samples::median)?;
            marks.push(Mark::Bar {
                from,
                to: end,
                color,
            });
        }
        Some(Row {
            label: results.name.to_owned(),
            value: Some(end),
            marks,
        })
    });
    Chart {
        title: "Phases of a task's life, medians, ms".to_owned(),
        legend: SHOWN.map(Phase::name).to_vec(),
        rows: rows.collect(),
    }
}

fn bar(label: String, value: f64, color: usize) -> Row {
    Row {
        label,
        value: Some(value),
        marks: vec![Mark::Bar {
            from: 0.0,
            to: value,
            color,
        }],
    }
}

fn memory(report: &Report) -> Chart {
    let rows = report.contestants.iter().filter_map(|results| {
        let density = results.densities.first()?;
        Some(bar(results.name.to_owned(), density.pss_mb(), 0))
    });
    let mut pods = report
        .contestants
        .iter()
        .flat_map(|results| &results.densities);
    Chart {
        title: format!(
            "PSS per pod among {}, MB",
            pods.next().map_or(0, |density| density.pods)
        ),
        legend: Vec::new(),
        rows: rows.collect(),
    }
}

fn programs(report: &Report) -> Chart {
    let mut sides: Vec<&'static str> = Vec::new();
    for real in &report.real {
        if !sides.contains(&real.contestant) {
            sides.push(real.contestant);
        }
    }
    let rows = report.real.iter().filter_map(|real| {
        let color = sides.iter().position(|side| *side == real.contestant)?;
        let pss = real.density.as_ref().map(Density::pss_mb)?;
        Some(bar(
            format!("{}, {}", real.program, real.contestant),
            pss,
            color,
        ))
    });
    Chart {
        title: "PSS per pod by program, MB".to_owned(),
        rows: rows.collect(),
        legend: sides,
    }
}
