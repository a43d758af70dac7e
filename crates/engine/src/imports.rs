//! What to say when a program imports something that we do not have.

use wasmtime::{Module, UnknownImportError};

use crate::compile::one_line;
use crate::link::LinkError;

/// Module name of WASI preview 1.
pub(crate) const PREVIEW1: &str = "wasi_snapshot_preview1";
/// The newest release of each line that is linked (wasmtime-wasi 48).
const NEWEST_2: (u64, u64, u64) = (0, 2, 12);
const NEWEST_3: (u64, u64, u64) = (0, 3, 0);
const HAVE: &str = "Sampan has WASI preview 1, 0.2 (to 0.2.12) and 0.3 (0.3.0)";

/// Why a module did not link.
pub(crate) fn of_module(module: &Module, error: &wasmtime::Error) -> LinkError {
    let Some(unknown) = error.downcast_ref::<UnknownImportError>() else {
        return LinkError::Mismatch {
            reason: one_line(error),
        };
    };
    // wasmtime stops at the first; whoever mends a build wants to know all of them.
    let mut missing = vec![(unknown.module(), unknown.name())];
    for import in module.imports() {
        let pair = (import.module(), import.name());
        if pair.0 != PREVIEW1 && !missing.contains(&pair) {
            missing.push(pair);
        }
    }
    missing_in_module(&missing)
}

/// Nobody has these imports of a module, of which there is at least one.
pub(crate) fn missing_in_module(missing: &[(&str, &str)]) -> LinkError {
    let names = missing
        .iter()
        .map(|(module, name)| format!("`{module}` `{name}`"))
        .collect::<Vec<_>>();
    let (module, name) = missing.first().copied().unwrap_or_default();
    LinkError::MissingImport {
        names: names.join(", "),
        hint: module_hint(module, name),
    }
}

/// The import at which linking a component stopped.
pub(crate) fn stopped_at(error: &wasmtime::Error) -> Option<String> {
    // "component imports instance `wasi:x/y@1.2.3`, but a matching implementation was not found
    // in the linker": the outermost message, and the only place that has the name.
    error.to_string().split('`').nth(1).map(str::to_owned)
}

/// The name under which an interface is defined here, if it is: every version of a line is the newest one's.
pub(crate) fn defined_as(name: &str) -> String {
    let line = |interface: &str, (major, minor, patch): (u64, u64, u64)| {
        format!("{interface}@{major}.{minor}.{patch}")
    };
    match name.split_once('@') {
        Some((interface, version)) if interface.starts_with("wasi:") && !version.contains('-') => {
            if version.starts_with("0.2.") {
                line(interface, NEWEST_2)
            } else if version.starts_with("0.3.") {
                line(interface, NEWEST_3)
            } else {
                name.to_owned()
            }
        }
        _ => name.to_owned(),
    }
}

/// Why a component did not link.
pub(crate) fn of_component(error: &wasmtime::Error) -> LinkError {
    let Some(name) = stopped_at(error) else {
        return LinkError::Mismatch {
            reason: one_line(error),
        };
    };
    // What else is in the chain says which part of an interface that is there does not fit.
    let parts: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let inner = (!parts
        .iter()
        .any(|part| part.contains("not found in the linker")))
    .then(|| parts.join(": "));
    LinkError::MissingImport {
        names: match inner {
            Some(inner) => format!("`{name}` ({inner})"),
            None => format!("`{name}`"),
        },
        hint: component_hint(&name),
    }
}

fn module_hint(module: &str, name: &str) -> String {
    match module {
        "wasi_unstable" => format!(
            "that is WASI preview 0 (2019); rebuild the program for preview 1 (target wasm32-wasip1) or later; {HAVE}"
        ),
        PREVIEW1 => format!("WASI preview 1 has no such function: it is an extension of another runtime; {HAVE}"),
        "wasi" if name == "thread-spawn" => {
            "that is the withdrawn proposal wasi-threads; rebuild the program without threads".to_owned()
        }
        "env" if name.contains("memory") || name.starts_with("__") => {
            "that is memory shared with the host, or dynamic linking; rebuild the program without threads and as one statically linked module".to_owned()
        }
        "env" => "`env` is no part of any WASI version: it is a symbol that was not linked, or the program was built with Emscripten or for another host program; rebuild it for WASI (wasm32-wasip1, wasm32-wasip2)".to_owned(),
        "gojs" | "go" => "the program was built with GOOS=js for browsers; rebuild it with GOOS=wasip1".to_owned(),
        "wbg" => "the program was built with wasm-bindgen for browsers; rebuild it for WASI (wasm32-wasip2)".to_owned(),
        other if other.starts_with("__wbindgen") => {
            "the program was built with wasm-bindgen for browsers; rebuild it for WASI (wasm32-wasip2)".to_owned()
        }
        other if other.starts_with("wasix") => {
            "that is WASIX, which only Wasmer has; rebuild the program for WASI".to_owned()
        }
        other if other.starts_with("wasi_ephemeral") || other.starts_with("wasi_nn") => {
            format!("that is a proposal, in no WASI version; {HAVE}")
        }
        other if other.starts_with("wasi:") => format!("{}; it belongs into a component, not a module", component_hint(other)),
        _ => format!("no WASI version has it: the program expects a host program of its own; {HAVE}"),
    }
}

fn component_hint(name: &str) -> String {
    let Some((interface, version)) = name
        .strip_prefix("wasi:")
        .map(|rest| rest.split_once('@').unwrap_or((rest, "")))
    else {
        return format!(
            "no WASI version has it: the program expects a host program of its own; {HAVE}"
        );
    };
    let package = interface.split('/').next().unwrap_or_default();
    if ![
        "cli",
        "clocks",
        "filesystem",
        "http",
        "io",
        "random",
        "sockets",
    ]
    .contains(&package)
    {
        return format!("wasi:{package} is a proposal, in no WASI version; {HAVE}");
    }
    if version.contains("-rc") || version.contains("-draft") {
        let release = version.split('-').next().unwrap_or_default();
        return format!(
            "that is a draft of WASI {release}; rebuild the program for the release; {HAVE}"
        );
    }
    let mut numbers = version.split('.').map(|number| number.parse::<u64>().ok());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return format!("it names no WASI version; {HAVE}");
    };
    let wanted = (major, minor, patch);
    if package == "io" && (major, minor) == (0, 3) {
        return format!("WASI 0.3 has no wasi:io (its streams are part of the language); {HAVE}");
    }
    let newest = if (major, minor) == (0, 2) {
        NEWEST_2
    } else {
        NEWEST_3
    };
    if wanted > newest {
        return format!("WASI {version} has it; {HAVE}");
    }
    if wanted < (0, 2, 0) {
        return format!(
            "that is a preview of WASI 0.2; rebuild the program for the release; {HAVE}"
        );
    }
    format!("WASI {version} has no such interface or function; {HAVE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_has_it_is_named() {
        for (name, words) in [
            ("wasi:http/types@0.9.0", "WASI 0.9.0 has it"),
            ("wasi:cli/run@0.3.7", "WASI 0.3.7 has it"),
            ("wasi:filesystem/types@0.2.77", "WASI 0.2.77 has it"),
            (
                "wasi:http/handler@0.3.0-rc-2025-09-16",
                "draft of WASI 0.3.0",
            ),
            ("wasi:keyvalue/store@0.2.0-draft", "proposal"),
            ("wasi:io/streams@0.3.0", "has no wasi:io"),
            ("acme:db/query@1.0.0", "host program"),
        ] {
            let hint = component_hint(name);
            assert!(hint.contains(words), "{name}: {hint}");
        }
        for (module, name, words) in [
            ("wasi_unstable", "fd_write", "preview 0"),
            ("env", "nope", "Emscripten"),
            ("env", "memory", "dynamic linking"),
            ("gojs", "runtime.wasmExit", "GOOS=wasip1"),
            (PREVIEW1, "sock_open", "extension"),
        ] {
            let hint = module_hint(module, name);
            assert!(hint.contains(words), "{module} {name}: {hint}");
        }
    }
}
