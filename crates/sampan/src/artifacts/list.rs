//! `sampan store ls`.

use std::time::SystemTime;

use serde::Serialize;
use store::Entry;

use crate::arguments::StoreLs;
use crate::failure::Outcome;
use crate::node::{self, Chosen};
use crate::output::{Screen, Text, bad, duration, good, size, strong};

/// A store, as it lies there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    path: String,
    /// Bytes of all.
    size: u64,
    /// Bytes that it may keep.
    limit: u64,
    programs: Vec<Listed>,
    /// What lies among them and is none.
    strays: Vec<String>,
}

/// A compiled program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    /// Of the guest bytes.
    digest: String,
    /// Whose it is.
    engine: String,
    size: u64,
    /// Seconds since it was used last.
    unused_seconds: u64,
    in_use: bool,
    /// Why it is not used.
    flaw: Option<String>,
}

impl Listed {
    fn of(entry: &Entry) -> Self {
        Self {
            digest: entry.guest.to_string(),
            engine: entry.fingerprint.clone(),
            size: entry.size,
            // A clock that was set back is no reason not to list it.
            unused_seconds: SystemTime::now()
                .duration_since(entry.used)
                .map_or(0, |age| age.as_secs()),
            in_use: entry.held,
            flaw: entry.flaw.as_ref().map(ToString::to_string),
        }
    }
}

pub(super) fn list(arguments: &StoreLs, screen: &mut Screen<'_>) -> Outcome<u8> {
    let (chosen, store) = Chosen::existing(&arguments.place)?;
    let found = store.inventory().map_err(node::failed)?;
    let listing = Listing {
        path: chosen.path.display().to_string(),
        size: found.entries.iter().map(|entry| entry.size).sum(),
        limit: chosen.limits.max_bytes,
        programs: found.entries.iter().map(Listed::of).collect(),
        strays: found
            .strays
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
    };
    screen.show(&listing, text(&listing))?;
    Ok(0)
}

fn text(listing: &Listing) -> Text {
    let mut text = Text::default();
    text.line(strong(&listing.path));
    text.row(
        "programs",
        format!(
            "{}, {} of {}",
            listing.programs.len(),
            size(listing.size),
            size(listing.limit)
        ),
    );
    let mut engine = None;
    for program in &listing.programs {
        if engine != Some(&program.engine) {
            text.heading(&format!("engine {}", program.engine));
            engine = Some(&program.engine);
        }
        let used = if program.in_use {
            good("in use")
        } else {
            format!("unused for {}", duration(program.unused_seconds))
        };
        let flaw = program
            .flaw
            .as_ref()
            .map_or_else(String::new, |flaw| format!(", {}", bad(flaw)));
        text.line(format!(
            "  {}  {:>10}  {used}{flaw}",
            program.digest,
            size(program.size)
        ));
    }
    if !listing.strays.is_empty() {
        text.heading("not compiled programs");
        for stray in &listing.strays {
            text.line(format!("  {stray}"));
        }
    }
    text
}
