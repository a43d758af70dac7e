//! The baseline: what a peer gets by building a shim from the published `containerd-shim-wasm` crate and wasmtime.
//!
//! It does what runwasi's own wasmtime shim does (precompiled layers, WASI 0.1 modules, `wasi:cli` commands and
//! `wasi:http` servers of WASI 0.2, everything of the rootfs preopened), so that `make bench` can show our numbers beside
//! a peer's in the same run. It is a yardstick, not a product: it inherits the peer's grants and its gaps on purpose.
#![deny(unsafe_code)]

mod guest;
mod http;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::LazyLock;

use anyhow::Result;
use containerd_shim_wasm::sandbox::Sandbox;
use containerd_shim_wasm::sandbox::context::{RuntimeContext, WasmLayer};
use containerd_shim_wasm::shim::{Cli as _, Compiler, Shim, Version, version};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// One engine per process, as the peer's: with the pooling allocator where the address space allows it.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut pooled = Config::new();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(
        PoolingAllocationConfig::default(),
    ));
    Engine::new(&pooled).unwrap_or_else(|error| {
        log::info!("no pooling allocator: {error:#}");
        Engine::default()
    })
});

struct Baseline;

#[derive(Default)]
struct Guest;

struct Precompiler;

impl Shim for Baseline {
    type Sandbox = Guest;

    fn name() -> &'static str {
        "baseline"
    }

    fn version() -> Version {
        version!()
    }

    async fn compiler() -> Option<impl Compiler> {
        Some(Precompiler)
    }
}

impl Compiler for Precompiler {
    fn cache_key(&self) -> impl Hash {
        let mut hasher = DefaultHasher::new();
        ENGINE.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    async fn compile(&self, layers: &[WasmLayer]) -> Result<Vec<Option<Vec<u8>>>> {
        layers
            .iter()
            .map(|layer| guest::precompile(&ENGINE, &layer.layer).map(Some))
            .collect()
    }
}

impl Sandbox for Guest {
    async fn run_wasi(&self, ctx: &impl RuntimeContext) -> Result<i32> {
        guest::run(&ENGINE, ctx).await
    }
}

fn main() {
    Baseline::run(None);
}
