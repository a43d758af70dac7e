use std::io;
use std::sync::{Arc, OnceLock};

use plan::{Access, GuestPlan, LogFormat, Preopen};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use crate::coredump::Dumps;
use crate::counts::Counts;
use crate::http::{Egress, Roots};
use crate::network::Gate;
use crate::proposals::Configuration;
use crate::stdio::{self, Labelled, Lines, Output, Stdin};
use crate::trace::{Current, Tracer};

/// What a guest may touch, as WASI understands it. Made once; every instance gets the same.
pub(crate) struct Grants {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    preopens: Vec<Preopen>,
    /// The directories of all instances that share threads, opened once.
    directories: OnceLock<WasiFilesystemCtx>,
    gate: Arc<Gate>,
    roots: Arc<Roots>,
    pub(crate) configuration: Arc<Configuration>,
    /// What traces its requests, if they are traced.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// Units of work that an instance has.
    pub(crate) fuel: Option<u64>,
    counts: Arc<Counts>,
    /// Where core dumps go, if there are to be any.
    pub(crate) dumps: Option<Arc<Dumps>>,
    format: LogFormat,
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
    pub(crate) fn new(
        guest: &GuestPlan,
        preopens: &[Preopen],
        counts: Arc<Counts>,
        tracer: Option<Tracer>,
        dumps: Option<Arc<Dumps>>,
    ) -> Self {
        Self {
            dumps,
            format: stdio::begin(guest.log_format),
            args: guest.args.clone(),
            env: guest.env.clone(),
            cwd: guest.cwd.clone(),
            preopens: preopens.to_vec(),
            directories: OnceLock::new(),
            gate: Gate::new(&guest.network, &counts),
            configuration: Arc::new(Configuration::new(
                guest.config_dir.as_deref(),
                &guest.env,
                preopens,
            )),
            roots: Arc::new(Roots::new(&guest.env, preopens)),
            tracer: tracer.map(Arc::new),
            fuel: guest.limits.fuel,
            counts,
        }
    }

    /// Where is counted what its guests do.
    pub(crate) const fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// What an instance writes, where its lines are not written as they are.
    pub(crate) fn lines(&self, labelled: bool) -> Option<Arc<Lines>> {
        (labelled || self.format == LogFormat::Json).then(|| Lines::new(self.format, labelled))
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
            current: self.tracer.as_ref().map(Current::of_start),
        }
    }

    /// A WASI context with all of it, for the one instance of a command.
    pub(crate) fn builder(&self, lines: Option<&Arc<Lines>>) -> Result<WasiCtxBuilder, GrantError> {
        let mut wasi = self.without_directories(lines);
        // To a command alone: the instances of a server would take each other's bytes.
        wasi.stdin(Stdin::default());
        // Has to stand before the directories: each keeps what was set when it was opened.
        wasi.allow_blocking_current_thread(true);
        self.open(&mut wasi)?;
        Ok(wasi)
    }

    /// As [`Grants::builder`], complete.
    pub(crate) fn context(
        &self,
        threads: Threads,
        lines: Option<&Arc<Lines>>,
    ) -> Result<WasiCtx, GrantError> {
        match threads {
            Threads::Own => Ok(self.builder(lines)?.build()),
            Threads::Shared => {
                let directories = self.directories()?.clone();
                let mut wasi = self.without_directories(lines).build();
                *wasi.filesystem() = directories;
                Ok(wasi)
            }
        }
    }

    /// The directories of a server's instances. They share what is opened: descriptors of its own for each request
    /// would be the first that a pod runs out of, and opening them takes a good part of a short request.
    pub(crate) fn directories(&self) -> Result<&WasiFilesystemCtx, GrantError> {
        if let Some(directories) = self.directories.get() {
            return Ok(directories);
        }
        let mut wasi = WasiCtxBuilder::new();
        self.open(&mut wasi)?;
        let opened = wasi.build().filesystem().clone();
        Ok(self.directories.get_or_init(|| opened))
    }

    /// All but directories and standard input. With `lines` each line is written as these say.
    fn without_directories(&self, lines: Option<&Arc<Lines>>) -> WasiCtxBuilder {
        let mut wasi = WasiCtxBuilder::new();
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
        wasi
    }

    fn open(&self, wasi: &mut WasiCtxBuilder) -> Result<(), GrantError> {
        for preopen in &self.preopens {
            let perms = match preopen.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            wasi.preopened_dir(preopen.source(), &preopen.path, perms)
                .map_err(|error| GrantError {
                    path: preopen.path.clone(),
                    source: error
                        .downcast()
                        .unwrap_or_else(|other| io::Error::other(format!("{other:#}"))),
                })?;
        }
        Ok(())
    }
}
