//! Servers of one component, side by side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use crate::load::{self, Load};
use crate::server::{Kind, Server, Yard};

/// Requests that an instance answers in its life, where instances are used again.
const REUSE: &str = "128";

#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    kind: Kind,
}

/// In the order of the tables.
const SIDES: [Side; 6] = [
    Side {
        name: "wasmtime",
        kind: Kind::Wasmtime(&[]),
    },
    Side {
        name: "baseline",
        kind: Kind::Baseline,
    },
    Side {
        name: "sampan",
        kind: Kind::Sampan(&[]),
    },
    Side {
        name: "sampan-log",
        kind: Kind::Sampan(&[("access-log", "json")]),
    },
    Side {
        name: "wasmtime-reuse",
        kind: Kind::Wasmtime(&["--max-instance-reuse-count", REUSE]),
    },
    Side {
        name: "sampan-reuse",
        kind: Kind::Sampan(&[("reuse-instances", REUSE)]),
    },
];

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Servers, in the order of the tables: wasmtime, baseline, sampan, sampan-log, wasmtime-reuse, sampan-reuse.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<String>,
    /// Connections, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,16,256")]
    connections: Vec<usize>,
    /// How often each server comes for each number of connections.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each time.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What is asked for.
    #[arg(long, default_value = "/")]
    path: String,
}

/// What was measured, and of whom.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    pub(crate) path: String,
    pub(crate) sides: Vec<Measured>,
    /// Those that could not be measured, and why.
    pub(crate) absent: Vec<(String, String)>,
}

/// One server's part.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) at: Vec<At>,
}

/// With so many connections.
#[derive(Debug, Serialize)]
pub(crate) struct At {
    pub(crate) connections: usize,
    /// One for each round; the same round of another side came within the same seconds.
    pub(crate) rounds: Vec<Load>,
}

/// # Errors
/// When containerd does not come up, or a server that answered stops to do so.
pub(crate) async fn run(
    options: &Options,
    shims: &[PathBuf],
    wasmtime: Option<&Path>,
) -> Result<Results> {
    let wanted = |side: &&Side| {
        options.sides.is_empty() || options.sides.iter().any(|name| name == side.name)
    };
    let yard = Yard::new(shims).await?;
    let mut servers: Vec<(&Side, Server<'_>)> = Vec::new();
    let mut absent = Vec::new();
    for side in SIDES.iter().filter(wanted) {
        eprintln!("bench-http: starting {}", side.name);
        match yard.start(side.kind, wasmtime).await {
            Ok(server) => servers.push((side, server)),
            Err(error) => absent.push((side.name.to_owned(), format!("{error:#}"))),
        }
    }
    let measured = measure(options, &servers).await;
    for (side, server) in servers {
        server
            .end()
            .await
            .with_context(|| format!("end {}", side.name))?;
    }
    yard.containerd.assert_clean().await?;
    Ok(Results {
        kernel: nix::sys::utsname::uname()?
            .release()
            .to_string_lossy()
            .into_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        path: options.path.clone(),
        sides: measured?,
        absent,
    })
}

async fn measure(options: &Options, servers: &[(&Side, Server<'_>)]) -> Result<Vec<Measured>> {
    let time = Duration::from_secs_f64(options.seconds);
    let mut all: Vec<Measured> = servers
        .iter()
        .map(|(side, _)| Measured {
            name: side.name.to_owned(),
            at: Vec::new(),
        })
        .collect();
    for &connections in &options.connections {
        eprintln!(
            "bench-http: {connections} connections, {} rounds of {} servers",
            options.rounds,
            servers.len()
        );
        for (_, server) in servers {
            load::run(server.address, &options.path, connections, time / 4).await?;
        }
        let mut rounds: Vec<Vec<Load>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds {
            // Another comes first each time, so that nobody always follows the same one.
            for turn in 0..servers.len() {
                let index = (turn + round) % servers.len();
                let (side, server) = &servers[index];
                let load = load::run(server.address, &options.path, connections, time)
                    .await
                    .with_context(|| side.name)?;
                rounds[index].push(load);
            }
        }
        for (measured, rounds) in all.iter_mut().zip(rounds) {
            measured.at.push(At {
                connections,
                rounds,
            });
        }
    }
    Ok(all)
}
