//! Everything that changes something is a named step of a straight list. What a step does, and how it is taken back,
//! stands in `operation`.
use std::cell::Cell;
use std::fmt;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A whole change of the node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// From whatever there is to an installed runtime: the first time, an upgrade, a repair.
    Install,
    /// From whatever there is to nothing.
    Uninstall,
}

/// One step.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The binaries lie in a directory that is named after their content.
    Place,
    /// Nothing new is scheduled here, if containerd has to be restarted or the runtime goes.
    Unlabel,
    /// No pod of ours runs any more.
    Drain,
    /// `current` points to the directory.
    Switch,
    /// containerd's configuration has our handlers.
    Configure,
    /// It has them no longer.
    Unconfigure,
    /// containerd was asked to start again, if what it runs with is not what is configured.
    Restart,
    /// It is back, CRI answers, and its handlers are those that are configured.
    Answer,
    /// A Wasm pod has run.
    Canary,
    /// What is installed is written down.
    Record,
    /// The node is labelled.
    Label,
    /// Directories of binaries that no process executes any more are gone.
    Prune,
    /// Binaries, compiled programs and all else are gone.
    Remove,
    /// So is what was written down.
    Forget,
}

impl Operation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Install, Self::Uninstall];

    /// Its steps, in the order in which they are done.
    #[must_use]
    pub const fn steps(self) -> &'static [Step] {
        match self {
            Self::Install => &[
                Step::Place,
                Step::Unlabel,
                Step::Switch,
                Step::Configure,
                Step::Restart,
                Step::Answer,
                Step::Canary,
                Step::Record,
                Step::Label,
                Step::Prune,
            ],
            Self::Uninstall => &[
                Step::Unlabel,
                Step::Drain,
                Step::Unconfigure,
                Step::Restart,
                Step::Answer,
                Step::Remove,
                Step::Forget,
            ],
        }
    }

    /// The first step that is not taken back: what is left from there on is finished by the next run.
    #[must_use]
    pub const fn commits_at(self) -> Step {
        match self {
            Self::Install => Step::Label,
            Self::Uninstall => Step::Remove,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Install => "install",
            Self::Uninstall => "uninstall",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Place => "place",
            Self::Unlabel => "unlabel",
            Self::Drain => "drain",
            Self::Switch => "switch",
            Self::Configure => "configure",
            Self::Unconfigure => "unconfigure",
            Self::Restart => "restart",
            Self::Answer => "answer",
            Self::Canary => "canary",
            Self::Record => "record",
            Self::Label => "label",
            Self::Prune => "prune",
            Self::Remove => "remove",
            Self::Forget => "forget",
        })
    }
}

/// When, seen from a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// It is written down that it begins.
    Before,
    /// In its middle: a file is written and not yet renamed, containerd has its signal.
    During,
    /// It is done, and that is not yet written down.
    After,
    /// It is to be taken back.
    Undo,
}

impl fmt::Display for When {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
            Self::Undo => "undo",
        })
    }
}

/// Steps that have a middle worth being killed in.
const LONG: &[Step] = &[
    Step::Place,
    Step::Configure,
    Step::Unconfigure,
    Step::Restart,
    Step::Canary,
    Step::Remove,
];

/// The names of all points at which a test can kill the process: `OPERATION:STEP:WHEN`.
#[must_use]
pub fn points() -> Vec<String> {
    let mut all = Vec::new();
    for operation in Operation::ALL {
        for step in operation.steps() {
            for when in [When::Before, When::During, When::After, When::Undo] {
                let there = match when {
                    When::During => LONG.contains(step),
                    When::Undo => *step < operation.commits_at(),
                    When::Before | When::After => true,
                };
                if there {
                    all.push(format!("{operation}:{step}:{when}"));
                }
            }
        }
    }
    all
}

/// Where a test wants this process to be killed, or a step to fail.
#[derive(Debug, Default)]
pub struct Failures {
    kill: Vec<String>,
    fail: Vec<String>,
    /// Whether a step was made to fail: once, so that a second try succeeds.
    failed: Cell<bool>,
    /// In this crate's own tests: unwind instead of ending the process. Nothing is cleaned up on the way, so the files
    /// are as after a kill.
    #[cfg(test)]
    pub(crate) unwinds: bool,
}

impl Failures {
    /// Reads `POINT,...`; `fail:STEP` lets the step fail after its work, a bare step's name is the point before it.
    ///
    /// # Errors
    /// When there is no such point.
    pub fn parse(text: &str) -> Result<Self> {
        let mut failures = Self::default();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            if let Some(step) = name.strip_prefix("fail:") {
                failures.fail.push(step.to_owned());
                continue;
            }
            let points = points();
            let named: Vec<String> = points
                .into_iter()
                .filter(|point| point == name || point.ends_with(&format!(":{name}:before")))
                .collect();
            if named.is_empty() {
                bail!("there is no step `{name}`: `status --steps` lists them");
            }
            failures.kill.extend(named);
        }
        Ok(failures)
    }

    /// Ends this process if a test wants that here.
    pub fn reach(&self, operation: Operation, step: Step, when: When) {
        let here = format!("{operation}:{step}:{when}");
        if self.kill.contains(&here) {
            #[cfg(test)]
            if self.unwinds {
                std::panic::resume_unwind(Box::new("killed"));
            }
            // Nothing is flushed and nothing is unwound: as when the kernel kills for want of memory.
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    /// Fails if a test wants the step to.
    ///
    /// # Errors
    /// When a test wants it.
    pub fn after(&self, step: Step) -> Result<()> {
        if self.fail.contains(&step.to_string()) && !self.failed.replace(true) {
            bail!("the step was made to fail");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_one_name_each() {
        let points = points();
        for name in [
            "install:place:before",
            "install:configure:during",
            "install:canary:undo",
            "uninstall:forget:after",
        ] {
            assert!(points.iter().any(|point| point == name), "{name}");
        }
        let mut unique = points.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), points.len());
        assert!(!points.contains(&"install:prune:undo".to_owned()));
    }

    #[test]
    fn a_bare_name_is_the_point_before_the_step() {
        let failures = Failures::parse("restart,install:place:after,fail:canary").expect("known");
        assert_eq!(
            failures.kill,
            [
                "install:restart:before",
                "uninstall:restart:before",
                "install:place:after"
            ]
        );
        assert!(failures.after(Step::Place).is_ok());
        assert!(failures.after(Step::Canary).is_err());
        assert!(failures.after(Step::Canary).is_ok(), "once");
        assert!(Failures::parse("no-such").is_err());
    }
}
