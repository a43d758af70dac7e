//! `sampan top`: this node's guests, and what they use.

pub(crate) mod guests;
mod sample;

use std::cmp::Reverse;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::arguments::{Order, Top};
use crate::failure::{Failure, Kind, Outcome};
use crate::node;
use crate::output::{Format, Screen, Text, duration, size, strong};
use guests::Guest;
use sample::Sample;

/// The guests at one time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    /// Seconds since 1970.
    time: u64,
    guests: Vec<Row>,
}

/// A guest, and what it uses.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    guest: Guest,
    /// Processors, 1 being one of them all the time; `null` where it could not be measured.
    cpu: Option<f64>,
    /// Bytes that the kernel counts for the container.
    memory: Option<u64>,
    /// Bytes that it may have.
    memory_limit: Option<u64>,
    /// Seconds since its process started.
    age_seconds: Option<u64>,
}

pub(crate) fn top(arguments: &Top, screen: &mut Screen<'_>) -> Outcome<u8> {
    let config = node::configuration(arguments.node_config.as_deref())?;
    let interval = Duration::from_secs(arguments.interval.into());
    let once = arguments.once || screen.format == Format::Json || !std::io::stdout().is_terminal();
    let root = Path::new("/");
    let mut before = measured(root, &config.run, arguments.all)?;
    loop {
        #[expect(
            clippy::disallowed_methods,
            reason = "what was used in this time is what is shown"
        )]
        std::thread::sleep(interval);
        let now = measured(root, &config.run, arguments.all)?;
        let table = table(&before, &now, arguments.sort);
        let text = text(&table, &config.run);
        if once {
            screen.show(&table, text)?;
            return Ok(0);
        }
        // Home, and what stood there goes.
        let cleared = screen.stdout.write_all(b"\x1b[H\x1b[2J");
        if cleared.is_err() {
            return Ok(0);
        }
        screen.show(&table, text)?;
        before = now;
    }
}

/// All guests, each with what it has used so far.
fn measured(root: &Path, run: &Path, all: bool) -> Outcome<Vec<(Guest, Sample)>> {
    let guests = guests::find(root, run).map_err(|error| {
        Failure::at(
            Kind::System,
            format!("cannot list the containers in {}", run.display()),
            error,
        )
    })?;
    let guests = guests.into_iter().filter(|guest| all || !guest.is_holder());
    Ok(guests
        .map(|guest| {
            let sample = Sample::of(root, guest.pid);
            (guest, sample)
        })
        .collect())
}

fn table(before: &[(Guest, Sample)], now: &[(Guest, Sample)], order: Order) -> Table {
    let mut guests: Vec<_> = now
        .iter()
        .map(|(guest, sample)| {
            let earlier = before
                .iter()
                .find(|(known, _)| known.pid == guest.pid && known.id == guest.id);
            Row {
                guest: guest.clone(),
                cpu: earlier.and_then(|(_, earlier)| sample.since(earlier)),
                memory: sample.memory,
                memory_limit: sample.memory_limit,
                age_seconds: sample.age,
            }
        })
        .collect();
    guests.sort_by_cached_key(|row| row.guest.names());
    match order {
        Order::Cpu => guests.sort_by_key(|row| Reverse(row.cpu.map(|cpu| (cpu * 1e6) as u64))),
        Order::Memory => guests.sort_by_key(|row| Reverse(row.memory)),
        Order::Name => {}
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Table {
        time: time.map_or(0, |time| time.as_secs()),
        guests,
    }
}

fn text(table: &Table, run: &Path) -> Text {
    const NONE: &str = "-";
    let mut lines = vec![
        [
            "NAMESPACE",
            "POD",
            "CONTAINER",
            "KIND",
            "PID",
            "CPU",
            "MEMORY",
            "LIMIT",
            "AGE",
        ]
        .map(str::to_owned),
    ];
    for row in &table.guests {
        let guest = &row.guest;
        let bytes = |bytes: Option<u64>| bytes.map_or(NONE.to_owned(), size);
        let (namespace, pod, container) = guest.names();
        lines.push([
            namespace,
            pod,
            container,
            guest.kind.to_owned(),
            guest.pid.to_string(),
            row.cpu
                .map_or(NONE.to_owned(), |cpu| format!("{:.1} %", cpu * 100.0)),
            bytes(row.memory),
            bytes(row.memory_limit),
            row.age_seconds.map_or(NONE.to_owned(), duration),
        ]);
    }
    let mut widths = [0; 9];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = Text::default();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate();
        let cells: Vec<_> = cells
            .map(|(column, (cell, width))| match column {
                // Numbers stand below each other.
                4..=8 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        let line = cells.join("  ");
        text.line(if index == 0 {
            strong(line.trim_end())
        } else {
            line.trim_end().to_owned()
        });
    }
    if table.guests.is_empty() {
        text.line(format!(
            "no guests (records of them lie in {})",
            run.display()
        ));
    }
    text
}
