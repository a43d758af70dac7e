//! `compile`: guest bytes in, artifact out, in a process that is bounded from outside.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::ExitCode;

use engine::CompileError;
use plan::{EngineSettings, ExitCode as Ended};

/// Where the supervisor left the guest bytes and the empty file for the artifact.
const SOURCE: &str = "/proc/self/fd/3";
const TARGET: &str = "/proc/self/fd/4";

/// The program was refused; the reason is on standard error, where with success there may be advice. Memory beyond the
/// bound ends the process by SIGABRT (Rust's answer to a failed allocation), time beyond it by SIGALRM.
const REFUSED: u8 = 1;
/// The artifact could not be written; the reason is on standard error.
const UNWRITTEN: u8 = 3;

pub(crate) fn compile(settings: &EngineSettings) -> ExitCode {
    let opened = File::open(SOURCE)
        .and_then(|source| Ok((source, OpenOptions::new().write(true).open(TARGET)?)));
    let (mut source, mut target) = match opened {
        Ok(files) => files,
        Err(error) => return broken("cannot open the descriptors 3 and 4", &error),
    };
    if let Err(error) = jail::enter_compile_jail() {
        return broken("cannot enter the jail", &error);
    }
    let mut guest = Vec::new();
    if let Err(error) = source.read_to_end(&mut guest) {
        return broken("cannot read the program", &error);
    }
    match engine::compile(&guest, settings, &mut target) {
        Ok(_) => {
            let debug = engine::debug_bytes(&guest);
            if debug > 0 {
                crate::say(&format!(
                    "{debug} of its {} bytes are debug sections, which nothing reads here: `wasm-tools strip` takes them \
                     away and leaves the names of functions\n",
                    guest.len()
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            crate::say(&format!("{}\n", crate::one_line(&error)));
            ExitCode::from(match error {
                CompileError::Write(_) => UNWRITTEN,
                _ => REFUSED,
            })
        }
    }
}

fn broken(what: &str, error: &dyn std::error::Error) -> ExitCode {
    crate::say(&format!("{what}: {}\n", crate::one_line(error)));
    ExitCode::from(Ended::Internal as u8)
}
