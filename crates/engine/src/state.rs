use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::grants::{Grants, Threads};
use crate::http::Egress;
use crate::limits::{Budget, Share};
use crate::names::{Asked, Names};
use crate::network::Gate;
use crate::proposals::Configuration;
use crate::stdio::{Entry, Lines, Output};
use crate::trace::Current;

/// What the store of a core module holds.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    lines: Option<Arc<Lines>>,
    share: Share,
}

/// What the store of a component holds.
pub(crate) struct ComponentState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    egress: Egress,
    gate: Arc<Gate>,
    asked: Asked,
    lines: Option<Arc<Lines>>,
    configuration: Arc<Configuration>,
    share: Share,
}

impl ModuleState {
    pub(crate) fn store(
        engine: &Engine,
        grants: &Grants,
        budget: &Arc<Budget>,
    ) -> wasmtime::Result<Store<Self>> {
        let lines = grants.lines(false);
        let wasi = grants.builder(lines.as_ref())?.build_p1();
        let mut store = Store::new(
            engine,
            Self {
                wasi,
                lines,
                share: Share::of(budget),
            },
        );
        store.limiter(|state| &mut state.share);
        bound(&mut store, grants)?;
        Ok(store)
    }

    /// What it writes, where its lines are not written as they are.
    pub(crate) fn lines(&self) -> Option<Arc<Lines>> {
        self.lines.clone()
    }
}

impl ComponentState {
    pub(crate) fn store(
        engine: &Engine,
        grants: &Grants,
        threads: Threads,
        lines: Option<Arc<Lines>>,
        budget: &Arc<Budget>,
    ) -> wasmtime::Result<Store<Self>> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let state = Self {
            table,
            wasi: grants.context(threads, lines.as_ref())?,
            http: WasiHttpCtx::new(),
            egress: grants.egress(),
            gate: Arc::clone(grants.gate()),
            asked: Asked::new(),
            lines,
            configuration: Arc::clone(&grants.configuration),
            share: Share::of(budget),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.share);
        store.set_hostcall_fuel(CALL);
        store.set_max_component_handles(RESOURCES);
        bound(&mut store, grants)?;
        Ok(store)
    }
}

impl ComponentState {
    /// What it writes from here on belongs to this request.
    pub(crate) fn label(&self, request: &Arc<str>) {
        if let Some(lines) = &self.lines {
            lines.label(request);
        }
    }

    /// What it sends from here on belongs to this request.
    pub(crate) fn follow(&mut self, current: Option<Current>) {
        self.egress.current = current;
    }

    /// What it does at the moment, where it is traced.
    pub(crate) const fn current(&mut self) -> Option<&mut Current> {
        self.egress.current.as_mut()
    }

    /// What it writes, where its lines are not written as they are.
    pub(crate) fn lines(&self) -> Option<Arc<Lines>> {
        self.lines.clone()
    }

    /// Writes an entry to standard error. If nobody reads it any more there is nobody to tell.
    pub(crate) fn log(&self, entry: &Entry<'_>) {
        let _ = match &self.lines {
            Some(lines) => lines.log(entry),
            None => Output::Stderr.write_all(entry.line().as_bytes()),
        };
    }

    /// The values of wasi:config.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Bytes of memory that it holds.
    pub(crate) fn held(&self) -> u64 {
        self.share.held()
    }

    /// What a name lookup needs.
    pub(crate) fn names(&mut self) -> Names<'_> {
        // Taken apart: the three are borrowed at once.
        let Self {
            table,
            wasi,
            gate,
            asked,
            ..
        } = self;
        Names {
            sockets: WasiSocketsCtxView {
                ctx: wasi.sockets(),
                table,
            },
            gate,
            asked,
        }
    }
}

/// Bytes that a guest may hand over in one call (wasmtime: 128 MiB): WASI's own streams take less than one, and the
/// host holds a copy of each for every call that is under way.
const CALL: usize = 16 << 20;
/// Resources (streams, descriptors, requests) and handles that an instance may hold (wasmtime: unlimited and 100,000).
/// Each costs the host some hundred bytes that no limit of the guest's memory counts; open files end at the process's
/// own limit before.
const RESOURCES: usize = 20_000;

/// What every store gets.
fn bound<T>(store: &mut Store<T>, grants: &Grants) -> wasmtime::Result<()> {
    // Code that has no checks for it takes no notice. Without a clock that goes on, as for commands, it is never over.
    store.set_epoch_deadline(1);
    // tokio's own way to let others on: a thread looks for new requests before it goes on with guests that compute.
    store.epoch_deadline_callback(|_| {
        let yielded = Box::pin(tokio::task::yield_now());
        Ok(UpdateDeadline::YieldCustom(1, yielded))
    });
    if let Some(fuel) = grants.fuel {
        store.set_fuel(fuel)?;
    }
    Ok(())
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.egress,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
