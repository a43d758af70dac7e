//! Every setting of wasmtime that we make, in one place, each with its reason. What is not here
//! is wasmtime's default for the pinned version, all wasm features among it.

use std::num::NonZeroUsize;

use plan::{EngineSettings, GuestPlan, Proposal};
use wasmtime::{
    Config, Enabled, Engine, PoolingAllocationConfig, ResourcesRequired, Strategy,
    WasmBacktraceDetails,
};

/// Frames of a backtrace; wasmtime's own default, said aloud because it is a promise of ours.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// How code is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// By the end of its process alone: one guest, and a signal handler that ends it whatever it does. Checks in the
    /// code (7 to 43 % of the guest's time) would buy nothing.
    Command,
    /// By checks in its code, at the end of a tick: instances share a process, so that one that computes must let the
    /// others on, and end at its request's time.
    Server,
}

/// What compiling and running must agree on: it is part of the fingerprint, and an artifact of
/// another opinion is refused when it is loaded.
fn common(settings: &EngineSettings, style: Style) -> Config {
    let mut config = Config::new();
    // The one compiler: Winch refuses exceptions, GC and tail calls, makes code half as fast,
    // and had the worst advisories of 2026.
    config.strategy(Strategy::Cranelift);
    config.consume_fuel(settings.fuel);
    for proposal in &settings.disabled {
        disable(&mut config, *proposal);
    }
    // Only the host's unwinder and native debuggers read `.eh_frame`; wasm backtraces do not.
    // Registering it at load costs time and memory in every container.
    config.native_unwind_info(false);
    config.epoch_interruption(style == Style::Server);
    // Names of functions in a backtrace, but no lines: DWARF would have to travel in every
    // artifact. Not left to WASMTIME_BACKTRACE_DETAILS in the environment of the runner.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    config
}

/// The engine that makes artifacts.
pub(crate) fn for_compiling(settings: &EngineSettings, style: Style) -> wasmtime::Result<Engine> {
    Engine::new(&common(settings, style))
}

fn disable(config: &mut Config, proposal: Proposal) {
    match proposal {
        Proposal::Exceptions => config.wasm_exceptions(false),
        Proposal::Gc => config.wasm_gc(false),
        Proposal::Memory64 => config.wasm_memory64(false),
        Proposal::MultiMemory => config.wasm_multi_memory(false),
        Proposal::RelaxedSimd => config.wasm_relaxed_simd(false),
        Proposal::Simd => config.wasm_simd(false).wasm_relaxed_simd(false),
        Proposal::TailCall => config.wasm_tail_call(false),
    };
}

/// Bytes of a fiber's stack beside those that the guest's code may use: what host functions need (wasmtime's own
/// difference).
const HOST_STACK: usize = 1536 << 10;

/// What running needs beside [`common`].
fn running(guest: &GuestPlan, style: Style) -> wasmtime::Result<Config> {
    let mut config = common(&guest.engine, style);
    // The process that runs guests cannot make native code.
    config.enable_compiler(false);
    let stack = usize::try_from(guest.limits.stack)?;
    config.max_wasm_stack(stack);
    config.async_stack_size(stack + HOST_STACK);
    Ok(config)
}

/// The engine that runs one guest. Its memories are made on demand: for a single instance a
/// pool is 1.3 to 2.5 ms of set-up against 0.13.
pub(crate) fn for_running(guest: &GuestPlan, style: Style) -> wasmtime::Result<Engine> {
    Engine::new(&running(guest, style)?)
}

/// Instances that a server has at once; further requests wait. Behind the container's memory
/// limit this only keeps a flood from becoming ten thousand stacks.
pub(crate) const INSTANCES: u32 = 1000;
/// Requests that one instance of a WASI 0.3 guest answers at once, each on a stack.
pub(crate) const CONCURRENT: u32 = 16;

/// The engine that makes an instance for every request, out of a pool that is laid out for
/// exactly this program: an instance then costs no `mmap`.
///
/// # Errors
/// Where the address space for the pool cannot be had, or the program is too large for one;
/// [`for_running`] serves it then as well, only slower.
pub(crate) fn for_serving(
    guest: &GuestPlan,
    style: Style,
    needs: &ResourcesRequired,
) -> wasmtime::Result<Engine> {
    /// Core modules in one component: adapters and shims of today's toolchains need up to ten.
    const MODULES: u32 = 64;
    /// Elements that a table may grow to. wasmtime's 20,000 refuse CPython and JavaScript with
    /// packages; eight bytes of address space each.
    const ELEMENTS: u64 = 100_000;
    /// Bytes per memory, table and stack that are cleaned by hand and kept when an instance
    /// ends, instead of given back and faulted in anew.
    const KEPT: usize = 256 << 10;
    const STACK_KEPT: usize = 16 << 10;
    /// Slots that keep so much while nobody uses them: what a quiet pod costs after a storm.
    const WARM: u32 = 16;

    let memories = needs.num_memories.max(1);
    let tables = needs.num_tables.max(1);
    let elements = needs
        .max_initial_table_size
        .unwrap_or(0)
        .saturating_mul(2)
        .max(ELEMENTS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * MODULES)
        .total_memories(INSTANCES * memories)
        .max_memories_per_module(memories)
        .total_tables(INSTANCES * tables)
        .max_tables_per_module(tables)
        .table_elements(usize::try_from(elements)?)
        .total_stacks(INSTANCES * CONCURRENT)
        .linear_memory_keep_resident(KEPT)
        .table_keep_resident(KEPT)
        .async_stack_keep_resident(STACK_KEPT)
        .max_unused_warm_slots(WARM)
        // Cleans only what was written, where the kernel can tell (Linux 6.7).
        .pagemap_scan(Enabled::Auto);
    let mut config = running(guest, style)?;
    config.allocation_strategy(pool);
    Engine::new(&config)
}
