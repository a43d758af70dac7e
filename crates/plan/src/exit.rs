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

impl ExitCode {
    /// All of them: name and meaning.
    const ALL: [(Self, &str, &str); 6] = [
        (
            Self::Trap,
            "Trap",
            "the guest trapped (unreachable code, access out of bounds, stack overflow, ...)",
        ),
        (
            Self::OutOfMemory,
            "OutOfMemory",
            "the guest reached its memory limit and ended because of it",
        ),
        (Self::OutOfTime, "OutOfTime", "the guest used up its `fuel`"),
        (
            Self::Internal,
            "Internal",
            "the runner could not do its work: a fault of Sampan or of the node",
        ),
        (
            Self::NotRunnable,
            "NotRunnable",
            "the program cannot be run: a directory cannot be opened for it, its address cannot be listened on",
        ),
        (
            Self::NotFound,
            "NotFound",
            "the export that was asked for does not exist (usually an error of the container's creation instead)",
        ),
    ];

    /// The table of the reference, as markdown.
    #[must_use]
    pub fn table() -> String {
        let mut table = "| code | name | meaning |\n|---|---|---|\n".to_owned();
        for (code, name, meaning) in Self::ALL {
            table.push_str(&format!("| {} | {name} | {meaning} |\n", code as u8));
        }
        table
    }
}
