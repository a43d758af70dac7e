//! `sampan`: all of it is in the library, so that tests can be the tool.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sampan::main()
}
