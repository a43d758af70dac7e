use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance};

use crate::state::ComponentState;
use crate::stdio::Entry;

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
            store.data().log(&Entry {
                level: level.name(),
                context: &context,
                message: &message,
                ..Entry::default()
            });
            Ok(())
        },
    )
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}
