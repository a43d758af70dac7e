//! What the engine promises about guests, asked of real processes: each guest runs in a process
//! of its own, which is this test binary executed again ([`process`]).
#![forbid(unsafe_code)]

mod commands;
mod features;
mod process;
mod refusals;
mod servers;
