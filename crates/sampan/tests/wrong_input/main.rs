//! Wrong input of every kind, made out of right input by chance: whatever it is, the tool ends with an exit code that the
//! documents name and, if it failed, with one line. A few seconds here; `cargo xtask fuzz` takes longer.
//!
//! `SAMPAN_FUZZ_SECONDS` says for how long, `SAMPAN_FUZZ_SEED` where chance begins. What is being tried lies in a file
//! meanwhile, so that it is there after a crash that nothing survives; what was found goes to `SAMPAN_FUZZ_FOUND`.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stderr,
    reason = "what was tried is worth knowing even where nothing was found"
)]

mod chance;
mod kinds;
mod registry;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use chance::Chance;
use kinds::{Case, Kind};

/// What one command line may take: more than the tool waits for a registry.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds that `cargo test` gives.
const SHORT: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

#[test]
fn is_told_in_a_line() {
    let seconds = number("SAMPAN_FUZZ_SECONDS").unwrap_or(SHORT);
    let seed = number("SAMPAN_FUZZ_SEED").unwrap_or(1);
    let found = std::env::var_os("SAMPAN_FUZZ_FOUND").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&found).expect("a directory for what is found");
    let place = tempfile::TempDir::new().expect("a directory");
    let kinds = Kind::all();
    let registry = registry::start(place.path().join("case"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tried = vec![[0_u64; 4]; kinds.len()];
    let mut chance = Chance::new(seed);
    // What is found is told at the end, each kind of it once.
    let mut faults: Vec<String> = Vec::new();
    let watch = watchdog();
    while Instant::now() < end && faults.len() < 10 {
        let index = chance.below(kinds.len());
        let kind = &kinds[index];
        let case = kind.case(&mut chance);
        let kept = found.join(format!("{}-at-work", kind.name));
        case.keep(&kept);
        watch.send(Some(kept.clone())).expect("the watchdog lives");
        let fault = match catch_unwind(AssertUnwindSafe(|| case.run(place.path(), registry))) {
            Ok(Ok(code)) => {
                tried[index][usize::from(code.min(3))] += 1;
                None
            }
            Ok(Err(fault)) => Some(fault),
            Err(panic) => {
                let said = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Some(format!("panic: {}", said.unwrap_or_default()))
            }
        };
        watch.send(None).expect("the watchdog lives");
        if let Some(fault) = fault {
            let kept = found.join(format!("{}-{}", kind.name, faults.len()));
            case.keep(&kept);
            faults.push(format!(
                "{} {:?}: {fault}; kept as {}",
                kind.name,
                case.words(),
                kept.display()
            ));
        }
        let _ = std::fs::remove_dir_all(&kept);
    }
    for (kind, [fine, refused, wrong, failed]) in kinds.iter().zip(&tried) {
        eprintln!(
            "{}: {fine} taken, {refused} refused, {wrong} wrong, {failed} failed",
            kind.name
        );
    }
    assert!(faults.is_empty(), "seed {seed}: {}", faults.join("\n"));
    for (kind, tried) in kinds.iter().zip(&tried) {
        assert!(
            tried.iter().sum::<u64>() > 0,
            "nothing of {} was tried",
            kind.name
        );
    }
}

/// Ends the process when a case takes too long: nothing else ends a loop.
fn watchdog() -> std::sync::mpsc::Sender<Option<PathBuf>> {
    let (sender, receiver) = channel::<Option<PathBuf>>();
    std::thread::spawn(move || {
        while let Ok(mut at_work) = receiver.recv() {
            while let Some(kept) = at_work {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(next) => at_work = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        eprintln!("it takes more than {PATIENCE:?}: {}", kept.display());
                        std::process::abort();
                    }
                }
            }
        }
    });
    sender
}

impl Case {
    /// Writes what is tried into a directory.
    fn keep(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, bytes).expect("written");
        }
        std::fs::write(dir.join("words"), self.words.join("\n")).expect("written");
    }
}
