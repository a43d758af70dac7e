use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::grants::{GrantError, Grants, Threads};
use crate::http::Egress;
use crate::limits::{Budget, Share};

/// What the store of a core module holds.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    share: Share,
}

/// What the store of a component holds.
pub(crate) struct ComponentState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    egress: Egress,
    share: Share,
}

impl ModuleState {
    pub(crate) fn store(
        engine: &Engine,
        grants: &Grants,
        budget: &Arc<Budget>,
    ) -> Result<Store<Self>, GrantError> {
        let wasi = grants.builder(Threads::Own)?.build_p1();
        let mut store = Store::new(
            engine,
            Self {
                wasi,
                share: Share::of(budget),
            },
        );
        store.limiter(|state| &mut state.share);
        Ok(store)
    }
}

impl ComponentState {
    pub(crate) fn store(
        engine: &Engine,
        grants: &Grants,
        threads: Threads,
        egress: Egress,
        budget: &Arc<Budget>,
    ) -> Result<Store<Self>, GrantError> {
        let state = Self {
            table: ResourceTable::new(),
            wasi: grants.builder(threads)?.build(),
            http: WasiHttpCtx::new(),
            egress,
            share: Share::of(budget),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.share);
        Ok(store)
    }
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
