/// Why a guest was stopped by the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Trap {
    /// It reached code that it says is never reached: how most languages abort.
    Unreachable,
    /// Access beyond its memory.
    Memory,
    /// Access beyond a table, or a call by a table's entry that is empty or of another type.
    Table,
    /// Division by zero, overflow, a number that does not fit.
    Integer,
    /// Too many calls in each other.
    Stack,
    /// It ended after its memory limit was reached.
    OutOfMemory,
    /// It used up its fuel, or its time.
    OutOfTime,
    /// A reference, array or cast of garbage-collected languages.
    Reference,
    /// Whatever else the engine or a host function ended it for.
    Other,
}

impl Trap {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Memory,
        Self::Table,
        Self::Integer,
        Self::Stack,
        Self::OutOfMemory,
        Self::OutOfTime,
        Self::Reference,
        Self::Other,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Integer => "integer",
            Self::Stack => "stack",
            Self::OutOfMemory => "out_of_memory",
            Self::OutOfTime => "out_of_time",
            Self::Reference => "reference",
            Self::Other => "other",
        }
    }
}
