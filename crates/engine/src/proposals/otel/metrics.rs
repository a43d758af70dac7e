//! Metrics are refused, by the interface's own error: nobody here could hand them on, and a guest that imports all of
//! `wasi:otel` runs all the same.

use wasmtime::component::Val;
use wasmtime::component::types::{ComponentFunc, Type};

const REASON: &str =
    "Sampan takes no metrics: serve them over HTTP, or send them to a collector with wasi:http";

/// Whether a function wants to know no more than whether it failed, and why.
pub(super) fn fits(ty: &ComponentFunc) -> bool {
    let mut results = ty.results();
    match (results.next(), results.next()) {
        (Some(Type::Result(result)), None) => {
            result.ok().is_none() && matches!(result.err(), Some(Type::String))
        }
        _ => false,
    }
}

/// Says so to each call.
pub(super) fn export(answers: &mut [Val]) {
    if let Some(answer) = answers.first_mut() {
        let reason = Box::new(Val::String(REASON.to_owned()));
        *answer = Val::Result(Err(Some(reason)));
    }
}
