//! What Sampan keeps on this node: compiled programs, and records of running containers.

use plan::NodeConfig;
use store::{Limits, Store};

use crate::artifacts::{Verdict, judge};
use crate::doctor::finding::Finding;
use crate::output::size;

const ABOUT: &str = "store";
/// Bytes that should be free where compiled programs are kept: those of a large one.
const FREE: u64 = 1 << 30;

pub(super) fn examine(config: &NodeConfig, findings: &mut Vec<Finding>) {
    let path = &config.store.path;
    let limits = Limits {
        max_bytes: config.store.max_bytes,
    };
    let looked = Store::existing(path, limits);
    let store = match looked {
        Ok(Some(store)) => store,
        Ok(None) => {
            findings.push(Finding::good(
                ABOUT,
                format!(
                    "{} is not there yet: the first container makes it",
                    path.display()
                ),
            ));
            return;
        }
        Err(error) => {
            findings.push(Finding::fault(
                ABOUT,
                chain(&error),
                "give the directory, and those above it, to root alone (chown root, chmod go-w), or set path of [store]",
            ));
            return;
        }
    };
    match store.inventory() {
        Err(error) => findings.push(Finding::unknown(ABOUT, chain(&error), "run this as root")),
        Ok(found) => {
            let bytes: u64 = found.entries.iter().map(|entry| entry.size).sum();
            let judged = judge(&store, &found.entries).unwrap_or_default();
            let unsound = judged
                .iter()
                .filter(|(_, verdict)| matches!(verdict, Verdict::Unsound(_)))
                .count();
            findings.push(if unsound == 0 {
                Finding::good(
                    ABOUT,
                    format!(
                        "{}: {} programs, {} of {}",
                        path.display(),
                        found.entries.len(),
                        size(bytes),
                        size(limits.max_bytes)
                    ),
                )
            } else {
                Finding::fault(
                    ABOUT,
                    format!(
                        "{}: {unsound} compiled programs are not sound",
                        path.display()
                    ),
                    "sampan store verify --repair",
                )
            });
        }
    }
    if let Ok(place) = rustix::fs::statvfs(path) {
        let free = place.f_bavail.saturating_mul(place.f_frsize);
        if free < FREE {
            findings.push(Finding::advice(
                ABOUT,
                format!("{} are free at {}", size(free), path.display()),
                "free space there: programs that are not compiled yet cannot be",
            ));
        }
    }
}

fn chain(error: &store::StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
