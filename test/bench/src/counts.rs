//! What the launch path costs in instructions: a number that does not depend on the machine's mood.
//!
//! The shim that containerd executes for a warm hello, and whatever descends from it, goes step by step (`PTRACE_SINGLESTEP`),
//! and the steps in user mode are counted: where there are no hardware counters (most virtual machines), and where valgrind
//! knows neither the new mount calls nor clone3. An iteration of a repeated string instruction counts as a step.

mod tracer;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::Mode;
use serde::Deserialize;

use self::tracer::Tracer;
use crate::containerd::Level;
use crate::contestant::{Contestant, KINDS};
use crate::figures::Table;
use crate::measure::Bench;
use crate::options::Options;
use crate::stage::{Stage, warm_up};
use crate::task::Step;

/// A start takes a minute step by step, and many more where others want the processors too.
const STEP_WITHIN: Duration = Duration::from_secs(600);

/// The part of the file of bounds that is held here; `cargo xtask build` holds the other.
#[derive(Debug, Default, Deserialize)]
struct Bounds {
    instructions: BTreeMap<String, u64>,
}

impl Bounds {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
        toml::from_str(&text).with_context(|| format!("read {path:?}"))
    }
}

/// A shim by the same name that waits, before it becomes the real one, until the tracer has taken it.
struct Gate {
    directory: PathBuf,
    fifo: PathBuf,
}

impl Gate {
    /// Before the shim `program`, in a directory below `scratch`, which comes first on containerd's PATH.
    fn make(scratch: &Path, program: &Path) -> Result<Self> {
        let directory = scratch.join("gate");
        std::fs::create_dir(&directory).with_context(|| format!("create {directory:?}"))?;
        let fifo = directory.join("fifo");
        let name = program.file_name().context("a shim has a name")?;
        let script = directory.join(name);
        // Nobody waits for commands other than `start`, nor for that one before the gate is closed.
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *start) if [ -e '{0}' ]; then echo $$ > '{0}.pid'; read -r _ < '{0}'; fi;; esac\n\
             exec '{1}' \"$@\"\n",
            fifo.display(),
            program.display()
        );
        std::fs::write(&script, text).with_context(|| format!("write {script:?}"))?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        Ok(Self { directory, fifo })
    }

    /// From now on who comes waits.
    fn close(&self) -> Result<()> {
        nix::unistd::mkfifo(&self.fifo, Mode::S_IRUSR | Mode::S_IWUSR)
            .with_context(|| format!("make the fifo {:?}", self.fifo))
    }
}

/// Prints the instructions of a warm start of ours, and holds them against the bounds in a file.
pub(crate) async fn run(options: &Options, bounds: &Path) -> Result<()> {
    let bounds = Bounds::read(bounds)?;
    let mut stage = Stage::set(options)?;
    let ours = KINDS
        .iter()
        .find(|kind| kind.name == "sampan")
        .and_then(|kind| kind.locate(&stage.shims))
        .context("find our shim: name its directory by --shims")?;
    let gate = Gate::make(stage.scratch.dir(), &ours.program)?;
    stage.shims.insert(0, gate.directory.clone());
    let containerd = stage.containerd(Level::Info).await?;
    let bench = stage.stock(&containerd).await?;
    warm_up(&bench, &ours).await?;
    judge(&bounds, &measure(&bench, &ours, &gate).await?)
}

/// Instructions of one warm start, by who executed them.
async fn measure(
    bench: &Bench<'_>,
    contestant: &Contestant,
    gate: &Gate,
) -> Result<BTreeMap<String, u64>> {
    let mut container = bench.prepare(contestant, &bench.hello, false).await?;
    gate.close()?;
    let tracer = Tracer::at(&gate.fifo);
    let mut counts = BTreeMap::new();
    let mut before = BTreeMap::new();
    for step in [Step::Create, Step::Run, Step::Delete] {
        // Whoever is at the gate waits for ever if the tracer has failed.
        let taken = tokio::time::timeout(STEP_WITHIN, container.take(step)).await;
        taken.with_context(|| {
            format!(
                "no end of {} within {STEP_WITHIN:?}, after {:?} steps",
                step.name(),
                tracer.counts()
            )
        })??;
        let now = tracer.counts();
        for (process, count) in &now {
            let spent = count - before.get(process).copied().unwrap_or_default();
            if spent > 0 {
                counts.insert(format!("{}, {process}", step.name()), spent);
            }
        }
        before = now;
    }
    container.discard().await?;
    tracer.end()?;
    Ok(counts)
}

/// Prints the counts beside their bounds.
///
/// # Errors
/// When one is beyond.
fn judge(bounds: &Bounds, counts: &BTreeMap<String, u64>) -> Result<()> {
    let (text, beyond) = table(counts, &bounds.instructions);
    println!("Instructions in user mode of a warm hello\n{text}");
    ensure!(
        beyond.is_empty(),
        "beyond test/bench/bounds.toml: {}",
        beyond.join(", ")
    );
    Ok(())
}

fn table(found: &BTreeMap<String, u64>, bounds: &BTreeMap<String, u64>) -> (String, Vec<String>) {
    let mut table = Table::new(&["", "found", "bound"]);
    let mut beyond = Vec::new();
    for (name, count) in found {
        let bound = bounds.get(name);
        if bound.is_some_and(|bound| count > bound) {
            beyond.push(format!("{name} ({count})"));
        }
        table.row(vec![
            name.clone(),
            count.to_string(),
            bound.map_or_else(|| "-".to_owned(), u64::to_string),
        ]);
    }
    // What is bounded and was not found is a bound of something that has another name now.
    let lost = bounds.keys().filter(|name| !found.contains_key(*name));
    beyond.extend(lost.map(|name| format!("{name} (not found)")));
    (table.render(), beyond)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::table;

    #[test]
    fn what_is_beyond_its_bound_or_gone_is_told() {
        let of = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        let bounds = of(&[("a", 10), ("b", 10), ("gone", 1)]);
        let (text, beyond) = table(&of(&[("a", 10), ("b", 11), ("new", 5)]), &bounds);
        assert_eq!(beyond, ["b (11)", "gone (not found)"]);
        assert!(text.contains("new") && text.contains('-'), "{text}");
    }
}
