//! Every setting of wasmtime that we make, in one place, each with its reason. What is not here
//! is wasmtime's default for the pinned version, all wasm features among it.

use std::num::NonZeroUsize;

use crate::coredump;
use plan::{EngineSettings, GuestPlan, Proposal, Serving};
use wasmtime::{
    Config, Enabled, Engine, PoolingAllocationConfig, ResourcesRequired, Strategy,
    WasmBacktraceDetails,
};

/// Frames of a backtrace; wasmtime's own default, said aloud because it is a promise of ours.
pub(crate) const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

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
    // Nothing that an artifact depends on: it is looked at when a guest has trapped.
    if guest.coredump.is_some() {
        config.coredump_on_trap(true);
        config.wasm_backtrace_max_frames(NonZeroUsize::new(coredump::FRAMES));
    }
    Ok(config)
}

/// The engine that runs one guest. Its memories are made on demand: for a single instance a
/// pool is 1.3 to 2.5 ms of set-up against 0.13.
pub(crate) fn for_running(guest: &GuestPlan, style: Style) -> wasmtime::Result<Engine> {
    Engine::new(&running(guest, style)?)
}

/// Requests that one instance of a WASI 0.3 guest answers at once.
pub(crate) const CONCURRENT: u32 = 16;

/// How many a server has at once of what it cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Instances; further requests wait for one of them to end.
    pub(crate) instances: u32,
    /// Stacks for calls that wait.
    stacks: u32,
}

impl Crowd {
    /// For a guest of WASI 0.3, or of 0.2.
    ///
    /// An instance for every request that may be answered, and some more where these are few: guests may work on after
    /// their answers. A stack for every instance: one of 0.2 has one call at a time, and what is above that is for
    /// components whose parts call each other asynchronously; of 0.3, each request may wait on a stack beside the one
    /// that its instance works on. More would be had, but each stack is made when the server starts (a system call and
    /// two of the `vm.max_map_count` mappings of a process, 65,530 by default).
    pub(crate) fn of(serving: &Serving, is_0_3: bool) -> Self {
        const FEWEST: u32 = 100;
        let instances = serving.max_requests.max(FEWEST);
        let spare = if is_0_3 { instances } else { instances / 8 };
        Self {
            instances,
            stacks: instances + spare,
        }
    }
}

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
    crowd: Crowd,
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
    let Crowd { instances, stacks } = crowd;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * MODULES)
        .total_memories(instances * memories)
        .max_memories_per_module(memories)
        .total_tables(instances * tables)
        .max_tables_per_module(tables)
        .table_elements(usize::try_from(elements)?)
        .total_stacks(stacks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_as_large_as_its_requests() {
        let crowd = |max_requests, is_0_3| {
            let serving = Serving {
                max_requests,
                ..Serving::default()
            };
            Crowd::of(&serving, is_0_3)
        };
        assert_eq!(crowd(1, false).instances, 100);
        assert_eq!(crowd(10_000, false).instances, 10_000);
        // Two mappings each; four more for an instance's memory still fit into what a process may have by default.
        let many = crowd(10_000, false);
        assert!(many.stacks * 2 + many.instances * 4 < 65_530);
        assert_eq!(crowd(1000, true).stacks, 2000);
    }
}
