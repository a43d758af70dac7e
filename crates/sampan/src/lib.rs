//! `sampan`: what a program needs and a pod gives, told before either runs; and a guest run as in a pod, without one.
//!
//! Nothing is decided here that a container's start decides: the answers come from `image`, `plan` and `engine`, as the
//! shim and the runner ask them.
#![forbid(unsafe_code)]

mod arguments;
mod artifacts;
mod code;
mod compile;
mod completions;
mod core_dump;
mod doctor;
mod explain;
mod failure;
mod inspect;
mod node;
mod observed;
mod output;
mod pack;
mod package;
mod perf_map;
mod pod;
mod profile;
mod run;
mod source;
mod top;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};
use crate::output::Screen;

/// The command line of this process, to its end.
#[must_use]
pub fn main() -> ExitCode {
    let (mut stdout, mut stderr) = (anstream::stdout(), anstream::stderr());
    ExitCode::from(answer(std::env::args_os(), &mut stdout, &mut stderr))
}

/// Does what a command line asks for, the first word being the tool's own name, and returns the exit code. The guest of
/// `run` has the process's own streams, and leaves behind what the end of the process cleans up.
pub fn answer(
    words: impl IntoIterator<Item = OsString>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let words: Vec<_> = words.into_iter().collect();
    let Arguments { command, output } = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(said) => return arguments::explain(&said, &words, stdout, stderr),
    };
    let mut screen = Screen {
        format: output,
        stdout,
        stderr,
    };
    let running = matches!(command, Command::Run(_));
    let done = match command {
        Command::Inspect(arguments) => inspect::inspect(&arguments, &mut screen),
        Command::Explain(arguments) => explain::explain(&arguments, &mut screen),
        Command::Run(arguments) => run::run(&arguments),
        Command::Compile(arguments) => compile::compile(&arguments, &mut screen),
        Command::Pack(arguments) => pack::pack(&arguments, &mut screen),
        Command::Push(arguments) => pack::push(&arguments, &mut screen),
        Command::Store(command) => artifacts::store(&command, &mut screen),
        Command::Doctor(arguments) => doctor::doctor(&arguments, &mut screen),
        Command::Top(arguments) => top::top(&arguments, &mut screen),
        Command::Profile(arguments) => profile::profile(&arguments, &mut screen),
        Command::PerfMap(arguments) => perf_map::perf_map(&arguments, &mut screen),
        Command::Coredump(arguments) => core_dump::core_dump(&arguments, &mut screen),
        Command::Completions { shell } => completions::completions(shell, &mut screen),
    };
    match done {
        Ok(code) => code,
        Err(failure) => screen.fail(&failure, running),
    }
}
