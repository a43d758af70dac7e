//! Which function of a program is called.

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, ExternType, Module};

use crate::link::LinkError;

/// What is called in a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ComponentCall {
    /// `wasi:cli/run` of WASI 0.2.
    Cli2,
    /// `wasi:cli/run` of WASI 0.3.
    Cli3,
    /// `wasi:http/incoming-handler` of WASI 0.2, for every request.
    Http2,
    /// `wasi:http/handler` of WASI 0.3, for every request.
    Http3,
    /// A function of its own.
    Export(String),
}

/// The entry point of a command of WASI preview 1.
const START: &str = "_start";

/// Finds the export `wanted`, or the entry point of a command.
pub(crate) fn of_module(module: &Module, wanted: Option<&str>) -> Result<String, LinkError> {
    let name = wanted.unwrap_or(START);
    match module.get_export(name) {
        Some(ExternType::Func(function)) => {
            let params = function
                .params()
                .map(|ty| ty.to_string())
                .collect::<Vec<_>>();
            if params.is_empty() {
                Ok(name.to_owned())
            } else {
                Err(LinkError::Parameters {
                    name: name.to_owned(),
                    params: params.join(", "),
                })
            }
        }
        _ => {
            let functions = module
                .exports()
                .filter(|export| matches!(export.ty(), ExternType::Func(_)))
                .map(|export| export.name().to_owned());
            Err(absent(wanted, functions, "a command exports `_start`"))
        }
    }
}

/// Finds the export `wanted`, or what the component is made for.
pub(crate) fn of_component(
    engine: &Engine,
    component: &Component,
    wanted: Option<&str>,
) -> Result<ComponentCall, LinkError> {
    let ty = component.component_type();
    if let Some(wanted) = wanted {
        let found = ty.exports(engine).find(|(name, _)| *name == wanted);
        if let Some((_, ComponentItem::ComponentFunc(function))) =
            found.map(|(n, item)| (n, item.ty))
        {
            let params = function
                .params()
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>();
            return if params.is_empty() {
                Ok(ComponentCall::Export(wanted.to_owned()))
            } else {
                Err(LinkError::Parameters {
                    name: wanted.to_owned(),
                    params: params.join(", "),
                })
            };
        }
        let functions = ty
            .exports(engine)
            .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
            .map(|(name, _)| name.to_owned());
        return Err(absent(Some(wanted), functions, ""));
    }
    // A command that can also serve is a command: whoever wants the other builds it for that.
    const WORLDS: [(&str, ComponentCall); 4] = [
        ("wasi:cli/run@0.3.", ComponentCall::Cli3),
        ("wasi:cli/run@0.2.", ComponentCall::Cli2),
        ("wasi:http/handler@0.3.", ComponentCall::Http3),
        ("wasi:http/incoming-handler@0.2.", ComponentCall::Http2),
    ];
    for (prefix, call) in WORLDS {
        // A draft (`0.3.0-rc-...`) is another interface.
        if ty.exports(engine).any(|(name, _)| {
            name.starts_with(prefix) && !name.contains('-')
                || name.starts_with(prefix) && prefix.contains("incoming-handler")
        }) {
            return Ok(call);
        }
    }
    let exports = ty.exports(engine).map(|(name, _)| name.to_owned());
    Err(absent(
        None,
        exports,
        "a component exports `wasi:cli/run`, `wasi:http/incoming-handler` (WASI 0.2) or `wasi:http/handler` (0.3)",
    ))
}

/// Of a component that was to be a command.
pub(crate) fn serves_only(engine: &Engine, component: &Component) -> LinkError {
    let ty = component.component_type();
    LinkError::ServesOnly {
        exports: quoted(ty.exports(engine).map(|(name, _)| name.to_owned())),
    }
}

fn quoted(names: impl Iterator<Item = String>) -> String {
    let names = names.map(|name| format!("`{name}`")).collect::<Vec<_>>();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

fn absent(
    wanted: Option<&str>,
    exports: impl Iterator<Item = String>,
    rule: &'static str,
) -> LinkError {
    let exports = quoted(exports);
    match wanted {
        Some(name) => LinkError::NoSuchExport {
            name: name.to_owned(),
            exports,
        },
        None => LinkError::NoEntry { rule, exports },
    }
}
