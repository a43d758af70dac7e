//! What the engine promises about guests, asked of real processes: each guest runs in a process
//! of its own, which is this test binary executed again ([`process`]).
#![forbid(unsafe_code)]

mod commands;
mod features;
mod network;
mod otel;
mod process;
mod proposals;
mod refusals;
mod requests;
mod servers;
mod survey;
mod telemetry;
mod tls;
