//! Interfaces that are in no WASI version yet, but that people use.
//!
//! Of `wasi:config` and `wasi:logging` every draft has the same shape, so whatever version a component names is what it
//! gets; where the shape is another, linking says so. Those of `wasi:otel` differ: see there.

mod config;
mod logging;
mod otel;

pub(crate) use config::Configuration;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use crate::state::ComponentState;

/// Defines those that the component imports.
pub(crate) fn add_to_linker(
    engine: &Engine,
    component: &Component,
    linker: &mut Linker<ComponentState>,
) -> wasmtime::Result<()> {
    for (name, item) in component.component_type().imports(engine) {
        match name
            .split_once('@')
            .map_or(name, |(interface, _)| interface)
        {
            "wasi:config/store" | "wasi:config/runtime" => {
                config::define(&mut linker.instance(name)?)?
            }
            "wasi:logging/logging" => logging::define(&mut linker.instance(name)?)?,
            "wasi:otel/tracing" | "wasi:otel/logs" | "wasi:otel/metrics" => {
                if let ComponentItem::ComponentInstance(wanted) = &item.ty {
                    otel::define(&mut linker.instance(name)?, engine, wanted)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
