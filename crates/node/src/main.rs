//! `sampan-node`: installs the runtime on a node, keeps it, and takes it away.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "status and detect print their result")]

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use node::Payload;
use node::change::Node;
use node::cluster::{Cluster, uninstall_everywhere};
use node::containerd::{Containerd as _, Live};
use node::host::{self, Host};
use node::settings::{Arguments, Command, Uninstall};

fn main() -> ExitCode {
    match started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "the edge: this is where an error is shown"
            )]
            {
                eprintln!("sampan-node: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn started() -> Result<()> {
    let raw: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = raw.split_first()
        && first == host::IN_HOST
    {
        // Before any thread exists.
        return host::enter(rest).map(|never| match never {});
    }
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(commanded(arguments))
}

async fn commanded(arguments: Arguments) -> Result<()> {
    let Arguments { command, settings } = arguments;
    if let Command::Status { steps: true } = command {
        for point in node::step::points() {
            println!("{point}");
        }
        return Ok(());
    }
    if let Command::Uninstall(how @ Uninstall { cluster: true, .. }) = command {
        return uninstall_everywhere(&settings.uninstall(how)).await;
    }
    if command == Command::Traces {
        return node::traces::command(&settings).await;
    }
    let containerd = Live::new(&settings, Host::new(&settings.host));
    let cluster = match command {
        Command::Status { .. } | Command::Detect => Cluster::None,
        _ => Cluster::connect(&settings).await?,
    };
    if let Command::Watch = command {
        return node::run::watch(&settings, &cluster).await;
    }
    let node = Node::new(settings, containerd, cluster)?;
    match command {
        Command::Run => node::run::run(&node).await,
        // It needs no state of its own.
        Command::Watch => Ok(()),
        Command::Install => {
            let payload = Payload::read(&node.settings.payload)?;
            let record = node.install(&payload).await?;
            println!("{}", serde_json::to_string_pretty(&record)?);
            Ok(())
        }
        Command::Uninstall(how) => node.uninstall(node.settings.uninstall(how)).await,
        Command::Status { .. } => {
            println!("{}", serde_json::to_string_pretty(&node.status()?)?);
            Ok(())
        }
        Command::Detect => {
            let found = node.containerd.found().await?;
            println!("{}", serde_json::to_string_pretty(&found)?);
            Ok(())
        }
        // Answered above: it needs no containerd.
        Command::Traces => Ok(()),
    }
}
