//! `containerd-shim-sampan-v1`: containerd's side of Sampan.
//!
//! containerd executes `start` once per pod, which leaves the supervisor behind, and `delete`
//! when a supervisor died; everything else goes through the Task service of the supervisor.
//! Under the name `containerd-shim-sampan-dense-v1` the supervisor is one for all pods ([`scope`]).
#![forbid(unsafe_code)]

mod bootstrap;
mod compile;
mod connection;
mod container;
mod containerd;
mod debug;
mod delete;
mod events;
mod exec;
mod failure;
mod flights;
mod guest;
mod incidents;
mod info;
mod launch;
mod logs;
mod native;
mod node;
mod on_term;
mod oom;
mod options;
mod peer;
mod places;
mod pod;
mod process;
mod record;
mod reference;
mod room;
mod scope;
mod socket;
mod start;
mod stats;
mod stdio;
mod supervisor;
mod task;
mod terminal;
mod totals;
mod trace;
mod update;

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::scope::Scope;

const HELP: &str = "\
containerd-shim-sampan-v1: runs WebAssembly and native containers for containerd

containerd executes this program; there is nothing to type by hand but:
  -v, -version   print the version and exit
  -info          print what the runtime is, as protobuf (containerd.runtime.v1.RuntimeInfo)
  -h, -help      print this text

To use it: put it and sampan-runner into one directory of containerd's PATH and add to
containerd's configuration a runtime handler with runtime_type = 'io.containerd.sampan.v1'.
With plain containerd: ctr run --runtime io.containerd.sampan.v1 IMAGE NAME

Executed as containerd-shim-sampan-dense-v1, a link to it beside it (runtime_type =
'io.containerd.sampan-dense.v1'), it serves all pods of the node with one process.

Node configuration: /etc/sampan/config.toml (all keys optional).
";

fn main() -> ExitCode {
    let scope = Scope::of_program(&std::env::args_os().next().unwrap_or_default());
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(scope, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd puts what the shim's commands write to standard error into the middle of its own message: without
            // an end of line that stays one line.
            let end = if std::io::stderr().is_terminal() {
                "\n"
            } else {
                ""
            };
            let message = format!("{error:#}").replace('\n', " ");
            #[expect(
                clippy::print_stderr,
                reason = "the edge: this is where an error is shown"
            )]
            {
                eprint!("{}: {message}{end}", scope.runtime());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(scope: Scope, args: &[String]) -> anyhow::Result<()> {
    if args.first().is_some_and(|arg| arg == native::COMMAND) {
        return native::command(&args[1..]);
    }
    if args
        .iter()
        .any(|arg| matches!(arg.as_str(), "-h" | "-help" | "--help" | "help"))
    {
        return info::print(HELP.as_bytes());
    }
    let flags = containerd_shim::parse(args)?;
    if flags.version {
        return info::version(scope);
    }
    if flags.info {
        return info::runtime(scope);
    }
    match flags.action.as_str() {
        "start" => start::command(scope, &flags),
        "delete" => delete::command(&flags),
        "" => anyhow::bail!(
            "no command given; containerd executes this program with `start` or `delete` (see -help)"
        ),
        other => {
            anyhow::bail!("`{other}` is no command; there are `start` and `delete` (see -help)")
        }
    }
}
