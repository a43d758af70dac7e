//! `sampan-runner`: executed afresh for every guest, and for every compilation. It is told what
//! to do by descriptors that the supervisor left open, and knows nothing of containerd.
#![forbid(unsafe_code)]

mod compile;
mod run;
mod spans;
mod termination;

use std::io::Write;
use std::process::ExitCode;

use plan::EngineSettings;

/// Each thread has its own heap, so that requests and the functions that are compiled side by side do not wait for one
/// lock: docs/decisions.md, "Allocators", has the measurements.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
sampan-runner: runs WebAssembly guests for containerd-shim-sampan-v1

It is started by the shim with descriptors that only the shim can give.

  sampan-runner run           run one guest (3: control socket, 4: artifact, 5: rootfs)
  sampan-runner compile [SETTINGS]      compile guest bytes (3: source, 4: target)
  sampan-runner fingerprint [SETTINGS]  print what artifacts of this engine depend on
  sampan-runner --version     print the version

SETTINGS is `standard` or a list, by +, of `fuel` and `no-PROPOSAL`.
";

/// Wrong arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next();
    let settings = match args.next() {
        Some(word) => word.to_str().and_then(EngineSettings::of_word),
        None => Some(EngineSettings::default()),
    };
    let (Some(settings), None) = (settings, args.next()) else {
        return usage();
    };
    match command.as_deref().and_then(|command| command.to_str()) {
        Some("run") => run::run(),
        Some("compile") => compile::compile(&settings),
        Some("fingerprint") => print(&format!("{}\n", engine::fingerprint(&settings))),
        Some("--version" | "-V") => {
            let version = env!("CARGO_PKG_VERSION");
            print(&format!(
                "sampan-runner {version} ({})\n",
                engine::fingerprint(&settings)
            ))
        }
        Some("--help" | "-h") => print(HELP),
        _ => usage(),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage() -> ExitCode {
    say(HELP);
    ExitCode::from(USAGE)
}

/// Writes to standard error; if that fails there is nobody to tell.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// An error and what it came from, in one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line.replace('\n', " ")
}
