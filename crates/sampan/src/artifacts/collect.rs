//! `sampan store gc`.

use serde::Serialize;
use store::{Entry, Evicted};

use crate::arguments::StoreGc;
use crate::failure::{Failure, Kind, Outcome};
use crate::node::{self, Chosen};
use crate::output::{Screen, Text, size, strong};
use crate::pod::bytes;

/// What was removed, or would be.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Collected {
    path: String,
    /// Whether it only would be.
    dry_run: bool,
    /// Compiled programs.
    removed: usize,
    /// Their bytes.
    removed_bytes: u64,
    /// Bytes of those that stay.
    kept_bytes: u64,
    /// Compiled programs that were due, and are in use.
    in_use: usize,
}

pub(super) fn collect(arguments: &StoreGc, screen: &mut Screen<'_>) -> Outcome<u8> {
    let (chosen, store) = Chosen::existing(&arguments.place)?;
    let keep = match &arguments.keep {
        None => chosen.limits.max_bytes,
        Some(text) => bytes(text)
            .and_then(|keep| u64::try_from(keep).ok())
            .ok_or_else(|| {
                Failure::new(
                    Kind::Wrong,
                    format!("--keep: `{text}` is not a quantity of bytes"),
                )
            })?,
    };
    let evicted = if arguments.dry_run {
        foreseen(&store.inventory().map_err(node::failed)?.entries, keep)
    } else {
        store.evict(keep).map_err(node::failed)?
    };
    let collected = Collected {
        path: chosen.path.display().to_string(),
        dry_run: arguments.dry_run,
        removed: evicted.files,
        removed_bytes: evicted.bytes,
        kept_bytes: evicted.kept_bytes,
        in_use: evicted.held,
    };
    screen.show(&collected, text(&collected))?;
    Ok(0)
}

/// What [`store::Store::evict`] would do, if nothing changes meanwhile.
fn foreseen(entries: &[Entry], keep: u64) -> Evicted {
    let mut all: Vec<_> = entries.iter().collect();
    all.sort_by_key(|entry| entry.used);
    let mut done = Evicted {
        kept_bytes: all.iter().map(|entry| entry.size).sum(),
        ..Evicted::default()
    };
    for entry in all {
        if done.kept_bytes <= keep {
            break;
        }
        if entry.held {
            done.held += 1;
        } else {
            done.files += 1;
            done.bytes += entry.size;
            done.kept_bytes -= entry.size;
        }
    }
    done
}

fn text(collected: &Collected) -> Text {
    let mut text = Text::default();
    text.line(strong(&collected.path));
    let what = if collected.dry_run {
        "would go"
    } else {
        "removed"
    };
    text.row(
        what,
        format!(
            "{} programs, {}",
            collected.removed,
            size(collected.removed_bytes)
        ),
    );
    text.row("stays", size(collected.kept_bytes));
    if collected.in_use > 0 {
        text.row("in use", format!("{} that were due", collected.in_use));
    }
    text
}
