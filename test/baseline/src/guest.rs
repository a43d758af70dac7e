//! Loading a guest and running it as a command; a component that exports `wasi:http/incoming-handler` goes to [`crate::http`].

use anyhow::{Context as _, Result, bail};
use containerd_shim_wasm::sandbox::context::{RuntimeContext, WasmBinaryType};
use tokio::signal::unix::{SignalKind, signal};
use wasmtime::component::{self, Component, ResourceTable};
use wasmtime::{Engine, Linker, Module, Precompiled, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What a component's store holds.
pub struct Host {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl Host {
    pub fn new(wasi: WasiCtx) -> Self {
        Self {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: Default::default(),
        }
    }
}

enum Program {
    Module(Module),
    Component(Component),
}

/// Compiles one layer to the native form that the peer stores in containerd's content store.
pub fn precompile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(match WasmBinaryType::from_bytes(bytes) {
        Some(WasmBinaryType::Module) => engine.precompile_module(bytes)?,
        Some(WasmBinaryType::Component) => engine.precompile_component(bytes)?,
        None => bail!("layer is neither a wasm module nor a component"),
    })
}

/// Runs the container's guest to its end. Returns the exit code; a signal ends it with 128 + signal, as the peer does.
pub async fn run(engine: &Engine, ctx: &impl RuntimeContext) -> Result<i32> {
    let entry = ctx.entrypoint();
    let bytes = entry.source.as_bytes()?;
    let program = if entry.source.is_precompiled()? {
        load_precompiled(engine, &bytes)?
    } else {
        compile(engine, &bytes)?
    };
    let outcome = tokio::select! {
        outcome = execute(engine, program, ctx, &entry.func) => outcome,
        code = ended_by_signal() => return code,
    };
    match outcome {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(error),
        },
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Program> {
    // `.wat` is accepted by both constructors; only binaries can be told apart beforehand.
    Ok(match WasmBinaryType::from_bytes(bytes) {
        Some(WasmBinaryType::Component) => Program::Component(Component::new(engine, bytes)?),
        Some(WasmBinaryType::Module) | None => Program::Module(Module::new(engine, bytes)?),
    })
}

#[allow(
    unsafe_code,
    reason = "native code can be loaded in no other way; the one place"
)]
fn load_precompiled(engine: &Engine, bytes: &[u8]) -> Result<Program> {
    match Engine::detect_precompiled(bytes) {
        // SAFETY: `is_precompiled` of containerd-shim-wasm 1.0.1 is true only for bytes that `Precompiler::compile` of a
        // shim on this node made and the library stored under a label with our cache key.
        Some(Precompiled::Module) => Ok(Program::Module(unsafe {
            Module::deserialize(engine, bytes)?
        })),
        // SAFETY: as above.
        Some(Precompiled::Component) => Ok(Program::Component(unsafe {
            Component::deserialize(engine, bytes)?
        })),
        None => bail!("stored precompiled layer is not native code of wasmtime"),
    }
}

async fn execute(
    engine: &Engine,
    program: Program,
    ctx: &impl RuntimeContext,
    func: &str,
) -> Result<()> {
    match program {
        Program::Module(module) => run_module(engine, &module, ctx, func).await,
        Program::Component(component) => run_component(engine, &component, ctx, func).await,
    }
}

async fn run_module(
    engine: &Engine,
    module: &Module,
    ctx: &impl RuntimeContext,
    func: &str,
) -> Result<()> {
    let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |wasi| wasi)?;
    let mut store = Store::new(engine, grants(ctx)?.build_p1());
    let instance = linker.instantiate_async(&mut store, module).await?;
    let entry = instance
        .get_func(&mut store, func)
        .with_context(|| format!("module does not export {func:?}"))?;
    Ok(entry.call_async(&mut store, &[], &mut []).await?)
}

async fn run_component(
    engine: &Engine,
    component: &Component,
    ctx: &impl RuntimeContext,
    func: &str,
) -> Result<()> {
    let mut linker = component::Linker::<Host>::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let pre = linker.instantiate_pre(component)?;
    if func == "_start"
        && let Ok(proxy) = ProxyPre::new(pre.clone())
    {
        return crate::http::serve(proxy, ctx).await;
    }
    let mut store = Store::new(engine, Host::new(grants(ctx)?.build()));
    if func == "_start" {
        let command = Command::instantiate_async(&mut store, component, &linker).await?;
        match command.wasi_cli_run().call_run(&mut store).await? {
            Ok(()) => Ok(()),
            Err(()) => bail!(I32Exit(1)),
        }
    } else {
        let instance = pre.instantiate_async(&mut store).await?;
        let entry = instance
            .get_func(&mut store, func)
            .with_context(|| format!("component does not export {func:?}"))?;
        Ok(entry.call_async(&mut store, &[], &mut []).await?)
    }
}

/// The peer's grants: arguments, environment, the whole rootfs with all rights, and the network.
fn grants(ctx: &impl RuntimeContext) -> Result<WasiCtxBuilder> {
    let mut builder = WasiCtxBuilder::new();
    builder
        .args(ctx.args())
        .envs(&environment(ctx))
        .inherit_stdio()
        .inherit_network()
        .allow_tcp(true)
        .allow_udp(true)
        .allow_ip_name_lookup(true)
        .preopened_dir("/", "/", FsPerms::ReadWrite)?;
    Ok(builder)
}

/// The container's environment as pairs; a variable without `=` has the empty value.
pub fn environment(ctx: &impl RuntimeContext) -> Vec<(String, String)> {
    ctx.envs()
        .iter()
        .map(|variable| variable.split_once('=').unwrap_or((variable, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The guest is process 1 of its pid namespace, where the kernel ignores signals that nobody handles.
async fn ended_by_signal() -> Result<i32> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => 128 + 2,
        _ = terminate.recv() => 128 + 15,
    })
}
