//! Two runs side by side.

use std::fmt;

use crate::exempt::Exemption;
use crate::run::{Outcome, Outcomes};

/// What is to be said of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Ours passes, or runc's does not either.
    Holds,
    /// It passes with runc's handler and not with ours.
    Breaks,
    /// The same, and the document says why.
    DoesNotApply(String),
}

/// All tests, and which exemptions are of no use any more.
#[derive(Debug)]
pub(crate) struct Comparison {
    rows: Vec<(String, Outcome, Outcome, Verdict)>,
    stale: Vec<String>,
}

pub(crate) fn compare(runc: &Outcomes, sampan: &Outcomes, exemptions: &[Exemption]) -> Comparison {
    let missing = Outcome::Failed("it was not run".to_owned());
    let rows = runc.iter().map(|(test, theirs)| {
        let ours = sampan.get(test).unwrap_or(&missing);
        let exempt = exemptions.iter().find(|exemption| exemption.test == *test);
        let verdict = match (theirs, ours, exempt) {
            (Outcome::Passed, Outcome::Passed, _) => Verdict::Holds,
            (Outcome::Passed, _, Some(exemption)) => Verdict::DoesNotApply(exemption.why.clone()),
            (Outcome::Passed, _, None) => Verdict::Breaks,
            _ => Verdict::Holds,
        };
        (test.clone(), theirs.clone(), ours.clone(), verdict)
    });
    // Where a part of the tests was run, the others say nothing.
    let stale = exemptions
        .iter()
        .filter(|exemption| sampan.get(&exemption.test) == Some(&Outcome::Passed))
        .map(|exemption| exemption.test.clone());
    Comparison {
        rows: rows.collect(),
        stale: stale.collect(),
    }
}

impl Comparison {
    /// Whether every test that passes with runc's handler passes with ours, or does not apply, and the document names
    /// no test that passes.
    pub(crate) fn holds(&self) -> bool {
        self.stale.is_empty() && self.rows.iter().all(|row| row.3 != Verdict::Breaks)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "| test | runc | sampan | |\n|---|---|---|---|")?;
        for (test, runc, sampan, verdict) in &self.rows {
            let verdict = match verdict {
                Verdict::Holds => "",
                Verdict::Breaks => "**breaks**",
                Verdict::DoesNotApply(_) => "does not apply",
            };
            writeln!(
                out,
                "| {test} | {} | {} | {verdict} |",
                word(runc),
                word(sampan)
            )?;
        }
        for (side, outcomes) in [
            (
                "runc",
                self.rows.iter().map(|row| &row.1).collect::<Vec<_>>(),
            ),
            ("sampan", self.rows.iter().map(|row| &row.2).collect()),
        ] {
            let count = |wanted: &str| {
                outcomes
                    .iter()
                    .filter(|outcome| word(outcome) == wanted)
                    .count()
            };
            writeln!(
                out,
                "\n{side}: {} passed, {} failed, {} skipped",
                count("passed"),
                count("failed"),
                count("skipped")
            )?;
        }
        for (test, runc, sampan, verdict) in &self.rows {
            for (side, outcome) in [("runc", runc), ("sampan", sampan)] {
                if let Outcome::Failed(message) = outcome {
                    writeln!(out, "\n{test}, with {side}: {message}")?;
                }
            }
            if let Verdict::DoesNotApply(why) = verdict {
                writeln!(out, "does not apply: {why}")?;
            }
        }
        for test in &self.stale {
            writeln!(
                out,
                "\n{test} passes, and docs/conformance.md says that it does not apply: take it from there"
            )?;
        }
        Ok(())
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed(_) => "failed",
        Outcome::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(&str, Outcome)]) -> Outcomes {
        list.iter()
            .map(|(test, outcome)| ((*test).to_owned(), outcome.clone()))
            .collect()
    }

    #[test]
    fn only_what_runc_passes_is_asked_for() {
        let failed = || Outcome::Failed("no".into());
        let exempt = |test: &str| Exemption {
            test: test.into(),
            why: "because".into(),
        };
        let runc = outcomes(&[
            ("a", Outcome::Passed),
            ("b", failed()),
            ("c", Outcome::Skipped),
        ]);
        let worse = outcomes(&[("a", failed()), ("b", failed()), ("c", Outcome::Skipped)]);
        assert!(compare(&runc, &runc, &[]).holds());
        assert!(!compare(&runc, &worse, &[]).holds());
        assert!(compare(&runc, &worse, &[exempt("a")]).holds());
        assert!(
            !compare(&runc, &runc, &[exempt("a")]).holds(),
            "an exemption that is not needed"
        );
        assert!(
            !compare(&runc, &outcomes(&[]), &[]).holds(),
            "tests that were not run"
        );
        let skipped = outcomes(&[("a", Outcome::Skipped), ("b", failed()), ("c", failed())]);
        assert!(!compare(&runc, &skipped, &[]).holds());
        let text = compare(&runc, &worse, &[exempt("a")]).to_string();
        assert!(
            text.contains("| a | passed | failed | does not apply |"),
            "{text}"
        );
        assert!(
            text.contains("runc: 1 passed, 1 failed, 1 skipped"),
            "{text}"
        );
    }
}
