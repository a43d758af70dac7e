//! Running programs, with progress that a person sees.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::build::{checkout, target_dir};

/// Says what is done now. Commands use this instead of printing, so that all progress looks the same.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a program to its end, with its output on our own stderr, and says how long it took.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let began = Instant::now();
    // Our stdout belongs to results; what a build prints is progress.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{what}: {} ended with {status}", shown(command));
    }
    eprintln!("    {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Builds a program of this repository in the development profile and runs it, with our own streams, on the binaries of
/// `shims`.
pub(crate) fn show(package: &str, program: &str, shims: &Path, arguments: &[String]) -> Result<()> {
    run(
        &format!("the program `{program}`"),
        Command::new("cargo").current_dir(checkout()).args([
            "build",
            "--locked",
            "--package",
            package,
            "--bin",
            program,
        ]),
    )?;
    let status = Command::new(target_dir().join("debug").join(program))
        .args(arguments)
        .env("SAMPAN_SHIM_DIR", shims)
        .status()
        .with_context(|| format!("start `{program}`"))?;
    if !status.success() {
        bail!("`{program}` ended with {status}");
    }
    Ok(())
}

/// Runs a program to its end and returns its stdout; its stderr is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} ended with {}: {}",
            shown(command),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("read the output of {}", shown(command)))
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
