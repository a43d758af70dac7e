//! `.github/workflows`, by actionlint and by our own rules.
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::checkout;
use crate::{step, tools};

/// Runs actionlint over all workflows.
pub(crate) fn lint() -> Result<()> {
    let mut command = Command::new(tools::program("actionlint")?);
    // Linters of shell and Python that happen to be on this machine would make the result depend on it.
    command
        .current_dir(checkout())
        .args(["-no-color", "-shellcheck=", "-pyflakes="])
        .args(files()?);
    step::run("actionlint", &mut command)
}

fn files() -> Result<Vec<PathBuf>> {
    let directory = checkout().join(".github/workflows");
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .with_context(|| format!("list {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The workflows with their names.
    fn all() -> Vec<(String, String)> {
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).expect("a workflow can be read");
            (path.display().to_string(), text)
        };
        let all: Vec<_> = files().expect("workflows").into_iter().map(read).collect();
        assert!(!all.is_empty());
        all
    }

    /// A tag can be moved to other code; a commit cannot.
    #[test]
    fn actions_are_pinned_to_a_commit_and_say_which_version_it_is() {
        for (name, text) in all() {
            for line in text.lines().map(str::trim) {
                let line = line.strip_prefix("- ").unwrap_or(line);
                let Some(action) = line.strip_prefix("uses: ") else {
                    continue;
                };
                if action.starts_with("./") {
                    continue;
                }
                let pinned = action.split_once('@').is_some_and(|(_, rest)| {
                    rest.split_once(" # v").is_some_and(|(commit, version)| {
                        commit.len() == 40
                            && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
                            && version.split('.').count() == 3
                    })
                });
                assert!(pinned, "{name}: {line}");
            }
        }
    }

    /// What is not named there is what the repository's settings say, which may be everything.
    #[test]
    fn workflows_name_their_permissions_and_jobs_their_time() {
        for (name, text) in all() {
            assert!(
                text.lines().any(|line| line.starts_with("permissions: {")),
                "{name} has no permissions of its own"
            );
            assert!(
                !text.contains("write-all") && !text.contains("pull_request_target"),
                "{name}"
            );
            let count = |word: &str| {
                text.lines()
                    .filter(|line| line.trim().starts_with(word))
                    .count()
            };
            assert_eq!(
                count("runs-on:"),
                count("timeout-minutes:"),
                "{name}: a job without an end"
            );
            assert_eq!(
                text.matches("uses: actions/checkout@").count(),
                text.matches("persist-credentials: false").count(),
                "{name}: the token stays in the checkout"
            );
        }
    }
}
