//! The root of the wasm program; `build.rs` compiles it.
#![forbid(unsafe_code)]

mod facts;
mod tool;

use std::io::{Write, stderr, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let facts = facts::Facts::take(&mut arguments);
    // WASI preview 1 begins at the root, whatever the container's working directory is. Where it does not exist,
    // relative paths are the root's.
    if let Some(facts) = &facts {
        let _ = std::env::set_current_dir(&facts.cwd);
    }
    let mut output = stdout().lock();
    let code = tool::run(
        &arguments,
        facts.as_ref(),
        &mut tool::Streams {
            input: &mut stdin().lock(),
            output: &mut output,
            errors: &mut stderr(),
        },
    );
    let _ = output.flush();
    ExitCode::from(code)
}
