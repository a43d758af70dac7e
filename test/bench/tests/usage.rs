//! What the programs say of themselves, and to who asks them for something else.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const PROGRAMS: [&str; 3] = [
    env!("CARGO_BIN_EXE_bench"),
    env!("CARGO_BIN_EXE_bench-http"),
    env!("CARGO_BIN_EXE_many"),
];

#[test]
fn each_says_how_it_is_called_and_refuses_what_it_does_not_know() -> Result<()> {
    for program in PROGRAMS {
        let run = |argument: &str| {
            let ran = Command::new(program).arg(argument).output();
            ran.with_context(|| format!("start {program}"))
        };
        let help = run("--help")?;
        let said = String::from_utf8_lossy(&help.stdout);
        ensure!(
            help.status.success() && said.contains("Usage: "),
            "{program}: {help:?}"
        );
        let refused = run("--no-such-option")?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            refused.status.code() == Some(2) && said.contains("'--no-such-option'"),
            "{program}: {refused:?}"
        );
    }
    Ok(())
}
