//! What is counted while a guest runs. Where it is counted the engine does not know.

use std::sync::Arc;
use std::time::Duration;

use plan::numbers::{Count, Durations};
use wasmtime::Trap as Wasm;

/// Adds to a word of a container's page ([`plan::numbers`]). Called on the guest's path, by several threads at once: it
/// must not wait.
type Add = Box<dyn Fn(usize, u64) + Send + Sync>;

/// Where a guest's numbers go.
pub struct Counts(Add);

impl Counts {
    /// To whoever adds to the page's words.
    #[must_use]
    pub fn new(add: impl Fn(usize, u64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(Box::new(add)))
    }

    /// Nowhere.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::new(|_, _| {})
    }

    pub(crate) fn add(&self, count: Count, by: u64) {
        (self.0)(count.word(), by);
    }

    pub(crate) fn one(&self, count: Count) {
        self.add(count, 1);
    }

    pub(crate) fn trapped(&self, trap: plan::numbers::Trap) {
        self.one(Count::Trapped(trap));
    }

    /// A request was answered, or its client has gone.
    pub(crate) fn answered(&self, code: u16, took: Duration) {
        self.one(Count::answered(code));
        for (word, by) in Durations::REQUEST.of(took) {
            (self.0)(word, by);
        }
    }
}

/// Which sort of trap it is.
pub(crate) const fn sort(trap: Wasm) -> plan::numbers::Trap {
    use plan::numbers::Trap;
    match trap {
        Wasm::UnreachableCodeReached => Trap::Unreachable,
        Wasm::MemoryOutOfBounds | Wasm::HeapMisaligned => Trap::Memory,
        Wasm::TableOutOfBounds | Wasm::IndirectCallToNull | Wasm::BadSignature => Trap::Table,
        Wasm::IntegerOverflow | Wasm::IntegerDivisionByZero | Wasm::BadConversionToInteger => {
            Trap::Integer
        }
        Wasm::StackOverflow => Trap::Stack,
        Wasm::OutOfFuel | Wasm::Interrupt => Trap::OutOfTime,
        Wasm::NullReference
        | Wasm::ArrayOutOfBounds
        | Wasm::AllocationTooLarge
        | Wasm::CastFailure => Trap::Reference,
        _ => Trap::Other,
    }
}
