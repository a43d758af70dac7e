use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance};

use crate::state::ComponentState;

/// `level` of `wasi:logging`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

pub(super) fn define(interface: &mut LinkerInstance<'_, ComponentState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "log",
        |store: StoreContextMut<'_, ComponentState>,
         (level, context, message): (Level, String, String)| {
            store.data().log(&line(level, &context, &message));
            Ok(())
        },
    )
}

/// `LEVEL context: message`; a message of several lines stays one entry, its further lines indented.
fn line(level: Level, context: &str, message: &str) -> String {
    let level = match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
        Level::Critical => "CRITICAL",
    };
    let separator = if context.is_empty() { "" } else { ": " };
    let text = format!("{context}{separator}{}", message.trim_end_matches('\n'));
    format!("{level} {}\n", text.replace('\n', "\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line() {
        assert_eq!(line(Level::Warn, "db", "slow\n"), "WARN db: slow\n");
        assert_eq!(line(Level::Info, "", "one\ntwo"), "INFO one\n  two\n");
    }
}
