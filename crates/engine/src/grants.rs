use std::io;

use plan::{Access, GuestPlan, Network, Preopen};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::stdio::{Output, Stdin};

/// What a guest may touch, as WASI understands it. Made once; every instance gets the same.
pub(crate) struct Grants {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    network: Network,
    preopens: Vec<Preopen>,
}

/// A directory of the guest could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the directory {path} for the guest: {source}")]
pub(crate) struct GrantError {
    path: String,
    source: io::Error,
}

/// Which thread works for the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The guest's own: nobody else needs it, and handing every file operation to another
    /// thread costs more than most of them take.
    Own,
    /// Those of the runtime, shared with other requests.
    Shared,
}

impl Grants {
    pub(crate) fn new(guest: &GuestPlan, preopens: &[Preopen]) -> Self {
        Self {
            args: guest.args.clone(),
            env: guest.env.clone(),
            cwd: guest.cwd.clone(),
            network: guest.network,
            preopens: preopens.to_vec(),
        }
    }

    /// A WASI context with all of it.
    ///
    /// Standard input goes to commands alone: the instances of a server would take each other's
    /// bytes.
    pub(crate) fn builder(&self, threads: Threads) -> Result<WasiCtxBuilder, GrantError> {
        let mut wasi = WasiCtxBuilder::new();
        if threads == Threads::Own {
            wasi.stdin(Stdin::default());
            // Has to stand before the directories: each keeps what was set when it was opened.
            wasi.allow_blocking_current_thread(true);
        }
        wasi.stdout(Output::Stdout).stderr(Output::Stderr);
        wasi.args(&self.args).envs(&self.env).initial_cwd(&self.cwd);
        match self.network {
            // The pod's network namespace and NetworkPolicy decide, as for a native program.
            Network::All => {
                wasi.allow_tcp(true)
                    .allow_udp(true)
                    .allow_ip_name_lookup(true)
                    .inherit_network();
            }
        }
        for preopen in &self.preopens {
            let perms = match preopen.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            wasi.preopened_dir(&preopen.path, &preopen.path, perms)
                .map_err(|error| GrantError {
                    path: preopen.path.clone(),
                    source: error
                        .downcast()
                        .unwrap_or_else(|other| io::Error::other(format!("{other:#}"))),
                })?;
        }
        Ok(wasi)
    }
}
