//! Every setting of wasmtime that we make, in one place, each with its reason. What is not here
//! is wasmtime's default for the pinned version, all wasm features among it.

use std::num::NonZeroUsize;

use wasmtime::{
    Config, Enabled, Engine, PoolingAllocationConfig, ResourcesRequired, Strategy,
    WasmBacktraceDetails,
};

/// Frames of a backtrace; wasmtime's own default, said aloud because it is a promise of ours.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// What compiling and running must agree on: it is part of the fingerprint, and an artifact of
/// another opinion is refused when it is loaded.
fn common() -> Config {
    let mut config = Config::new();
    // The one compiler: Winch refuses exceptions, GC and tail calls, makes code half as fast,
    // and had the worst advisories of 2026.
    config.strategy(Strategy::Cranelift);
    // Only the host's unwinder and native debuggers read `.eh_frame`; wasm backtraces do not.
    // Registering it at load costs time and memory in every container.
    config.native_unwind_info(false);
    // No epoch checks: a command is a process of its own and its signal handler ends it, so the
    // checks (7 to 43 % of the guest's time) would buy nothing.
    config.epoch_interruption(false);
    // Names of functions in a backtrace, but no lines: DWARF would have to travel in every
    // artifact. Not left to WASMTIME_BACKTRACE_DETAILS in the environment of the runner.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    config
}

/// The engine that makes artifacts.
pub(crate) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(&common())
}

/// The engine that runs one guest. Its memories are made on demand: for a single instance a
/// pool is 1.3 to 2.5 ms of set-up against 0.13.
pub(crate) fn for_running() -> wasmtime::Result<Engine> {
    let mut config = common();
    // The process that runs guests cannot make native code.
    config.enable_compiler(false);
    Engine::new(&config)
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
pub(crate) fn for_serving(needs: &ResourcesRequired) -> wasmtime::Result<Engine> {
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
    let mut config = common();
    config.enable_compiler(false);
    config.allocation_strategy(pool);
    Engine::new(&config)
}
