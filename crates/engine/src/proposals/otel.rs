//! `wasi:otel`: spans, logs and metrics that a guest's own OpenTelemetry library hands to the host.
//!
//! Of this proposal no two drafts have the same types: values of attributes were variants and became JSON, records gained and
//! lost fields, and the libraries' own copies drifted. So what a guest hands over is taken with the types that the guest has
//! for it, and read by the names of its fields; what is not there is not known. What cannot be understood like that (other
//! functions, or one that wants an answer of another shape) is not defined, and linking names it.

mod fields;
mod logs;
mod metrics;
mod spans;
mod tracing;
mod values;

use wasmtime::Engine;
use wasmtime::component::LinkerInstance;
use wasmtime::component::types::{ComponentFunc, ComponentInstance, ComponentItem, Type};

use crate::state::ComponentState;

/// Defines those functions of an interface that the guest wants. No two interfaces have functions of the same name.
pub(super) fn define(
    interface: &mut LinkerInstance<'_, ComponentState>,
    engine: &Engine,
    wanted: &ComponentInstance,
) -> wasmtime::Result<()> {
    for (name, item) in wanted.exports(engine) {
        let ComponentItem::ComponentFunc(ty) = &item.ty else {
            continue;
        };
        match name {
            "on-start" if says(ty, &[]) => interface.func_new(name, |mut store, _, told, _| {
                tracing::on_start(store.data_mut(), told);
                Ok(())
            })?,
            "on-end" if says(ty, &["span-context", "name"]) => {
                interface.func_new(name, |mut store, _, told, _| {
                    tracing::on_end(store.data_mut(), told);
                    Ok(())
                })?;
            }
            // Typed, so that linking holds what the guest wants against it.
            "outer-span-context" => interface.func_wrap(name, |mut store, (): ()| {
                Ok((tracing::outer(store.data_mut()),))
            })?,
            "current-span-context" => interface.func_wrap(name, |mut store, (): ()| {
                Ok((tracing::inner(store.data_mut()),))
            })?,
            "on-emit" if says(ty, &["body"]) => interface.func_new(name, |store, _, told, _| {
                logs::on_emit(store.data(), told);
                Ok(())
            })?,
            "export" if metrics::fits(ty) => interface.func_new(name, |_, _, _, answers| {
                metrics::export(answers);
                Ok(())
            })?,
            _ => {}
        }
    }
    Ok(())
}

/// Whether a function takes a record first that has these fields, and answers nothing.
fn says(ty: &ComponentFunc, fields: &[&str]) -> bool {
    let Some((_, Type::Record(record))) = ty.params().next() else {
        return false;
    };
    let has = |wanted: &&str| record.fields().any(|field| field.name == *wanted);
    fields.iter().all(has) && ty.results().len() == 0
}
