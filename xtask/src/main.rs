//! What is done to this repository. One file per command; a command's file is its verb.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: its output is its purpose"
)]

mod bench;
mod bench_http;
mod build;
mod chart;
mod check;
mod conformance;
mod demo;
mod e2e;
mod fuzz;
mod guests;
mod image;
mod kind;
mod many;
mod python;
mod reference;
mod step;
mod test;
mod tools;
mod workflows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What is done to this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch and build what the tests run against (containerd, crictl, runc, registry, CNI plugins) into the cache
    Tools,
    /// Build the programs that the tests run, from test/guests into the cache
    Guests {
        /// Only these (`probe`, `http-js`), with what is built together with them
        names: Vec<String>,
    },
    /// Build the shim, the runner and the node program as they ship, static, and copy them to `dist` in cargo's target directory
    Build {
        /// With the development profile instead: quick to build, slow to run, not copied
        #[arg(long)]
        debug: bool,
        /// The profile that ships (the default)
        #[arg(long, conflicts_with = "debug")]
        release: bool,
        /// The command line tool instead, which is for people's machines
        #[arg(long, conflicts_with = "debug")]
        tool: bool,
        /// Processor; default: this machine's
        #[arg(long)]
        target: Option<build::Processor>,
    },
    /// Build, and pack the node program with the shim and the runner as an OCI image: `sampan-node.tar` beside them
    Image {
        /// Processor; default: this machine's
        #[arg(long)]
        target: Option<build::Processor>,
        /// The image's name
        #[arg(long, default_value = image::REFERENCE)]
        reference: String,
        /// Pack the binaries of this directory instead of building
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// Build, and copy the two binaries to where containerd finds them
    Install {
        /// Directory, as /usr/local/bin
        #[arg(long)]
        to: PathBuf,
    },
    /// Run everything that must hold: format, lints, unit tests, tests with real containerds
    Test {
        /// Only steps whose name contains one of these
        steps: Vec<String>,
    },
    /// Show a Wasm artifact on its way from a registry through containerd to its output (as root)
    Demo {
        /// For the demo itself
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run critest with runc's handler and with ours, and compare the two (as root)
    Conformance {
        /// For critest itself: `-- --ginkgo.focus=Streaming`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Bring up a Kubernetes cluster of one node and run the end-to-end suite in it (as root); with KUBECONFIG in that one
    E2e {
        /// For the suite itself: `-- deployment`, `-- --list`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Hold something against the world outside
    Check {
        #[command(subcommand)]
        what: Check,
    },
    /// Write the tables of docs/reference.md that the code knows
    Reference {
        /// Only say whether they are fresh
        #[arg(long)]
        check: bool,
    },
    /// Bring up a cluster in Docker, install the chart of this tree on it, and run the end-to-end suite
    Kind {
        /// How its nodes pull images
        #[arg(long, default_value = "kind")]
        pull: kind::Pull,
        /// Kubernetes' minor version, as 1.36; default: that of kind's own image
        #[arg(long)]
        kubernetes: Option<String>,
        /// For the suite itself
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Write what follows from charts/sampan/values.yaml: the chart's schema and table, and deploy/
    Chart {
        /// Only say whether it is fresh
        #[arg(long)]
        check: bool,
    },
    /// Bring up as many pods as are told, all alive together, and tell what they take (as root)
    Many {
        /// For the program itself: `-- --pods 1000`, `-- --handler sampan`; `-- --help` lists them
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Give the command line tool wrong input of every kind: programs, manifests, names, images, settings
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Where chance begins: a run with the same seed tries the same, as far as it gets; default: the clock
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Count the instructions of a warm start (as root) and the bytes of what ships; fail beyond test/bench/bounds.toml
    Counts,
    /// Build every contestant and measure start-up, throughput and memory side by side (as root)
    Bench {
        /// Measure the shim and the runner of this revision too
        #[arg(long)]
        base: Option<String>,
        /// For the bench itself: `-- --quick`, `-- --sides floor,sampan`; `-- --help` lists them
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Build servers of a wasi:http component, `wasmtime serve` among them, and measure them side by side (as root)
    BenchHttp {
        /// Measure the shim and the runner of this directory instead of building them
        #[arg(long)]
        shims: Option<PathBuf>,
        /// For the bench itself: `-- compare --rounds 3`, `-- alive --requests 10000`; `-- --help` lists them
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Check {
    /// Whether wasmtime is the newest patch of its line, and which advisories cover it
    Engine,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Without the backtrace that an error may carry: it would be the end of a log, and say nothing.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Tools => tools::run(),
        Command::Guests { names } => guests::run(&names),
        Command::Build {
            debug,
            tool,
            target,
            ..
        } => {
            let processor = target.map_or_else(build::Processor::host, Ok)?;
            let directory = if tool {
                build::tool(processor)?
            } else {
                build::run(processor, !debug)?
            };
            println!("{}", directory.display());
            Ok(())
        }
        Command::Image {
            target,
            reference,
            from,
        } => {
            let processor = target.map_or_else(build::Processor::host, Ok)?;
            let from = from.map_or_else(|| build::run(processor, true), Ok)?;
            println!("{}", image::pack(processor, &from, &reference)?.display());
            Ok(())
        }
        Command::Install { to } => build::install(&to),
        Command::Test { steps } => test::run(&steps),
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Conformance { arguments } => conformance::run(&arguments),
        Command::E2e { arguments } => e2e::run(&arguments),
        Command::Check {
            what: Check::Engine,
        } => match check::engine()? {
            check::Engine::Newest => Ok(()),
            check::Engine::Unknown(why) => {
                println!("skipped: {why}");
                Ok(())
            }
        },
        Command::Reference { check } => reference::run(check),
        Command::Kind {
            pull,
            kubernetes,
            arguments,
        } => kind::run(pull, kubernetes.as_deref(), &arguments),
        Command::Chart { check } => chart::run(check),
        Command::Many { arguments } => many::run(&arguments),
        Command::Bench { base, arguments } => bench::run(base.as_deref(), &arguments),
        Command::Fuzz { seconds, seed } => fuzz::run(Duration::from_secs(seconds), seed),
        Command::Counts => bench::counts(&build::run(build::Processor::host()?, true)?),
        Command::BenchHttp { shims, arguments } => bench_http::run(shims, &arguments),
    }
}
