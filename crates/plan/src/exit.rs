/// The exit codes that Sampan itself gives to a container; a guest's own code is passed on.
///
/// None of them is 128 or more, so none can be taken for a signal (128 + its number); 125 to
/// 127 mean what they mean to a shell and to other runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The guest trapped (unreachable code, out-of-bounds access, stack overflow, ...).
    Trap = 121,
    /// The guest reached its memory limit and ended because of it.
    OutOfMemory = 122,
    /// The guest reached its time or fuel limit.
    OutOfTime = 123,
    /// The runner could not do its work: a fault of Sampan or of the node.
    Internal = 125,
    /// The program cannot be run: the export takes parameters, the module has no entry point.
    NotRunnable = 126,
    /// The export that was asked for does not exist.
    NotFound = 127,
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
