//! The programs of tests, all compiled by one call of cargo: what they share gets the features that all of them want, and
//! is compiled once, not once more for each package that is tested.
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Package, Tally, cargo};
use crate::step;

/// Programs of tests.
pub(crate) struct Programs(Vec<Program>);

#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    path: PathBuf,
    /// The package's, where cargo runs its tests too.
    directory: PathBuf,
}

impl Programs {
    /// Compiles those of the workspace, and the programs that are under test; or those of one package, where none of
    /// another will run.
    pub(crate) fn compile(only: Option<&Package>) -> Result<Self> {
        step::say("the tests (some minutes the first time)");
        let mut cargo = cargo();
        match only {
            Some(package) => cargo.args(["test", "--package", &package.name]),
            None => cargo.args(["test", "--workspace"]),
        };
        let built = cargo
            .args(["--locked", "--no-run"])
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("start cargo")?;
        ensure!(built.status.success(), "cargo ended with {}", built.status);
        let messages = String::from_utf8(built.stdout).context("read what cargo says")?;
        Ok(Self(messages.lines().filter_map(program).collect()))
    }

    /// Runs the tests of a package: its programs of these names, or all. One that fails does not keep the others from
    /// running. `with` completes the command of each.
    pub(crate) fn run(
        &self,
        package: &Package,
        only: Option<&[&str]>,
        tally: &mut Tally,
        flags: &[&str],
        with: impl Fn(&mut Command),
    ) -> Result<()> {
        let (mut ran, mut failed) = (0, Vec::new());
        for program in self.0.iter().filter(|program| {
            program.directory == package.directory
                && only.is_none_or(|only| only.contains(&program.name.as_str()))
        }) {
            let what = format!("{}: {}", package.name, program.name);
            step::say(&what);
            let mut command = Command::new(&program.path);
            command.current_dir(&program.directory);
            with(&mut command);
            ran += 1;
            if let Err(error) = tally.run(&what, &mut command, flags) {
                failed.push(format!("{error:#}"));
            }
        }
        ensure!(
            ran > 0 && only.is_none_or(|only| only.len() == ran),
            "{}: {ran} of its programs of tests were run, not those that were wanted: {only:?}",
            package.name
        );
        if !failed.is_empty() {
            bail!("{}", failed.join("\n"));
        }
        Ok(())
    }
}

/// The program of tests that a message of cargo's tells of.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["profile"]["test"] != true {
        return None;
    }
    Some(Program {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
        directory: Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_known_and_nothing_else() {
        let message = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/x/test/shim/Cargo.toml","target":{{"name":"life"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let life = Program {
            name: "life".to_owned(),
            path: "/t/life-1".into(),
            directory: "/x/test/shim".into(),
        };
        assert_eq!(program(&message(true, r#""/t/life-1""#)), Some(life));
        assert_eq!(program(&message(false, r#""/t/life-1""#)), None);
        assert_eq!(program(&message(true, "null")), None);
        assert_eq!(
            program(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(program("chatter"), None);
    }
}
