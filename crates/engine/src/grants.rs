use std::io;
use std::sync::Arc;

use plan::{Access, GuestPlan, Preopen};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::http::{Egress, Roots};
use crate::network::Gate;
use crate::proposals::Configuration;
use crate::stdio::{Labelled, Lines, Output, Stdin};

/// What a guest may touch, as WASI understands it. Made once; every instance gets the same.
pub(crate) struct Grants {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    preopens: Vec<Preopen>,
    gate: Arc<Gate>,
    roots: Arc<Roots>,
    pub(crate) configuration: Arc<Configuration>,
    /// Units of work that an instance has.
    pub(crate) fuel: Option<u64>,
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
            preopens: preopens.to_vec(),
            gate: Gate::new(&guest.network),
            configuration: Arc::new(Configuration::new(
                guest.config_dir.as_deref(),
                &guest.env,
                preopens,
            )),
            roots: Arc::new(Roots::new(&guest.env, preopens)),
            fuel: guest.limits.fuel,
        }
    }

    /// What watches over the network, for name lookups.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What sends requests.
    pub(crate) fn egress(&self) -> Egress {
        Egress {
            gate: Arc::clone(&self.gate),
            roots: Arc::clone(&self.roots),
        }
    }

    /// A WASI context with all of it.
    ///
    /// Standard input goes to commands alone: the instances of a server would take each other's
    /// bytes. With `lines` each line that it writes is labelled.
    pub(crate) fn builder(
        &self,
        threads: Threads,
        lines: Option<&Arc<Lines>>,
    ) -> Result<WasiCtxBuilder, GrantError> {
        let mut wasi = WasiCtxBuilder::new();
        if threads == Threads::Own {
            wasi.stdin(Stdin::default());
            // Has to stand before the directories: each keeps what was set when it was opened.
            wasi.allow_blocking_current_thread(true);
        }
        match lines {
            None => wasi.stdout(Output::Stdout).stderr(Output::Stderr),
            Some(lines) => {
                let labelled = |output| Labelled {
                    output,
                    lines: Arc::clone(lines),
                };
                wasi.stdout(labelled(Output::Stdout))
                    .stderr(labelled(Output::Stderr))
            }
        };
        wasi.args(&self.args).envs(&self.env).initial_cwd(&self.cwd);
        let sockets = self.gate.has_sockets();
        wasi.allow_tcp(sockets).allow_udp(sockets);
        // Names are asked for at the gate, where there is something to watch over.
        wasi.allow_ip_name_lookup(true);
        if self.gate.is_open() {
            // The pod's network namespace and NetworkPolicy decide, as for a native program.
            wasi.inherit_network();
        } else {
            let gate = Arc::clone(&self.gate);
            wasi.socket_addr_check(move |address, purpose| {
                let lets = gate.lets(address, purpose);
                Box::pin(async move { lets })
            });
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
