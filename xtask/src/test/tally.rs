//! Counting tests over several programs of them.
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How many tests had which end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    filtered: u64,
}

impl Tally {
    /// Runs tests, shows what they say and counts. A test that could not run and said `skipped: why` counts as
    /// ignored, not as passed.
    pub(crate) fn run(&mut self, what: &str, command: &mut Command, flags: &[&str]) -> Result<()> {
        let (began, failed) = (Instant::now(), self.failed);
        let mut child = command
            // Output of tests that passed, which is where the skipped ones say why.
            .arg("--show-output")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {what}"))?;
        let stdout = child.stdout.take().context("take its output")?;
        let mut reader = Reader::default();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("read its output")?;
            let line = String::from_utf8_lossy(&line);
            if self.note(&mut reader, &line) {
                eprintln!("{line}");
            }
        }
        let status = child.wait().with_context(|| format!("wait for {what}"))?;
        if !status.success() {
            // What is wrong beside its tests, as when something was left behind, is one more.
            self.failed = self.failed.max(failed + 1);
            let complaint = reader.complaint;
            bail!("{what}: ended with {status}{complaint}");
        }
        eprintln!("    {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Takes one line of output; returns whether it is worth showing.
    fn note(&mut self, reader: &mut Reader, line: &str) -> bool {
        if !reader.successes && (line.starts_with("error: ") || !reader.complaint.is_empty()) {
            reader.complaint += "\n";
            reader.complaint += line;
        }
        if line == "successes:" {
            reader.successes = true;
            return false;
        }
        if line == "failures:" {
            reader.successes = false;
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            reader.successes = false;
            let count = |word: &str| {
                counts
                    .split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            let skipped = std::mem::take(&mut reader.skipped);
            self.passed += count("passed").saturating_sub(skipped);
            self.failed += count("failed");
            self.ignored += count("ignored") + skipped;
            self.filtered += count("filtered out");
            return true;
        }
        let skipped = line.starts_with("skipped: ");
        if skipped {
            reader.skipped += 1;
        }
        skipped || !reader.successes
    }

    /// The closing line, as cargo writes it.
    pub(crate) fn line(&self, ok: bool, took: Duration) -> String {
        format!(
            "test result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s",
            if ok { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.ignored,
            self.filtered,
            took.as_secs_f64()
        )
    }
}

/// What the lines so far were.
#[derive(Default)]
struct Reader {
    /// Inside the output of tests that passed.
    successes: bool,
    /// Tests of the running binary that said they were skipped.
    skipped: u64,
    /// From a line that begins with `error: ` to the end.
    complaint: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_without_a_failed_test_counts_as_one() {
        let mut tally = Tally::default();
        for (exit, failed) in [("false", 1), ("true", 1), ("false", 2)] {
            let ran = tally.run("a program", &mut Command::new(exit), &[]);
            assert_eq!((ran.is_ok(), tally.failed), (exit == "true", failed));
        }
    }

    #[test]
    fn why_a_program_fails_is_told_with_its_end() {
        let mut program = Command::new("sh");
        let script = "echo a line; echo error: left behind:; echo mount /x; exit 1";
        let ran = Tally::default().run("a program", program.args(["-c", script]), &[]);
        let error = ran.expect_err("it fails").to_string();
        assert!(
            error.ends_with("\nerror: left behind:\nmount /x"),
            "{error}"
        );
        assert!(!error.contains("a line"), "{error}");
    }

    #[test]
    fn counts_add_up_and_skipped_tests_did_not_pass() {
        let output = "running 3 tests\ntest a ... ok\n\nsuccesses:\n\n---- b stdout ----\nskipped: containerd needs root\nchatter\n\n\
                      successes:\n    a\n    b\n\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s";
        let mut tally = Tally::default();
        let mut reader = Reader::default();
        let shown: Vec<_> = output
            .lines()
            .filter(|line| tally.note(&mut reader, line))
            .collect();
        assert_eq!(
            tally,
            Tally {
                passed: 3,
                failed: 2,
                ignored: 2,
                filtered: 2
            }
        );
        assert!(shown.contains(&"skipped: containerd needs root") && !shown.contains(&"chatter"));
        assert_eq!(
            tally.line(false, Duration::from_millis(2500)),
            "test result: FAILED. 3 passed; 2 failed; 2 ignored; 0 measured; 2 filtered out; finished in 2.50s"
        );
    }
}
