use super::{Trap, Words};

/// What a container is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// A wasm guest.
    Wasm,
    /// A native program.
    Native,
    /// It holds a pod's namespaces.
    Pod,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wasm, Self::Native, Self::Pod];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Native => "native",
            Self::Pod => "pod",
        }
    }
}

/// A part of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// To make the cgroup, with the record that comes before it.
    Cgroup,
    /// To find the guest's bytes in the image.
    Image,
    /// To find the compiled program, or to compile it.
    Artifact,
    /// To make the runner's process.
    Spawn,
    /// Until the runner stands in its jail with the program linked.
    Runner,
    /// All of Create of a container with a guest.
    Create,
    /// Start: the word to go.
    Start,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Cgroup,
        Self::Image,
        Self::Artifact,
        Self::Spawn,
        Self::Runner,
        Self::Create,
        Self::Start,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Image => "image",
            Self::Artifact => "artifact",
            Self::Spawn => "spawn",
            Self::Runner => "runner",
            Self::Create => "create",
            Self::Start => "start",
        }
    }
}

/// Why a container could not be created, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Spec, image or program are wrong.
    Invalid,
    /// Something that was asked for is not there.
    NotFound,
    /// The state of something forbids it.
    Precondition,
    /// Memory, disk, time or places ran out.
    Exhausted,
    /// It is not implemented.
    Unimplemented,
    /// A fault of ours or of the node.
    Internal,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Invalid,
        Self::NotFound,
        Self::Precondition,
        Self::Exhausted,
        Self::Unimplemented,
        Self::Internal,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Precondition => "precondition",
            Self::Exhausted => "exhausted",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }
}

/// The exit codes that are counted each for itself: those that programs use, [`crate::ExitCode`]'s, and those of signals.
/// A guest chooses its code, so there has to be an end to them.
pub const ENDS: [u32; 29] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 101, 121, 122, 123, 125, 126, 127, 129, 130, 131, 132, 134,
    135, 136, 137, 139, 143, 255,
];

/// A number of the node's totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// Containers that were created.
    Created(Role),
    /// Containers that could not be.
    Refused(Cause),
    /// Programs that the store had.
    StoreHit,
    /// Programs that it had not.
    StoreMiss,
    /// Programs that it gave up to keep below its limit.
    StoreEvicted,
    /// Programs that could not be compiled.
    CompileFailed,
    /// Bytes of wasm that were compiled.
    CompiledGuest,
    /// Bytes of the programs that they became.
    CompiledArtifact,
    /// Processes that the kernel killed for want of memory.
    OomKill,
    /// Units of fuel that guests have used whose containers are gone.
    Fuel,
    /// Incidents that were not told, because too many wait to be.
    IncidentDropped,
    /// Lines of supervisors' own logs that nobody took in time.
    LogLineDropped,
    /// Processes that were executed in containers.
    Executed,
    /// Traps of guests whose containers are gone.
    Trapped(Trap),
    /// Containers that ended with the code of this place in [`ENDS`], or with another one.
    Ended(u8),
}

impl Total {
    /// Of a container's exit code.
    #[must_use]
    pub fn ended(code: u32) -> Self {
        let place = ENDS.iter().position(|known| *known == code);
        Self::Ended(u8::try_from(place.unwrap_or(ENDS.len())).unwrap_or(u8::MAX))
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> usize {
        match self {
            Self::Created(role) => role as usize,
            Self::Refused(cause) => 8 + cause as usize,
            Self::StoreHit => 16,
            Self::StoreMiss => 17,
            Self::StoreEvicted => 18,
            Self::CompileFailed => 19,
            Self::CompiledGuest => 20,
            Self::CompiledArtifact => 21,
            Self::OomKill => 22,
            Self::Fuel => 23,
            Self::IncidentDropped => 24,
            Self::Executed => 25,
            Self::LogLineDropped => 26,
            Self::Trapped(trap) => 40 + trap as usize,
            Self::Ended(place) => 64 + place as usize,
        }
    }
}

/// The totals as they were when they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals(pub Words);

impl Totals {
    /// One of them.
    #[must_use]
    pub fn get(&self, total: Total) -> u64 {
        self.0.get(total.word())
    }
}

#[cfg(test)]
pub(super) fn all_words() -> impl Iterator<Item = usize> {
    let plain = [
        Total::StoreHit,
        Total::StoreMiss,
        Total::StoreEvicted,
        Total::CompileFailed,
        Total::CompiledGuest,
        Total::CompiledArtifact,
        Total::OomKill,
        Total::Fuel,
        Total::IncidentDropped,
        Total::LogLineDropped,
        Total::Executed,
    ];
    plain
        .into_iter()
        .chain(Role::ALL.map(Total::Created))
        .chain(Cause::ALL.map(Total::Refused))
        .chain(Trap::ALL.map(Total::Trapped))
        .chain((0..=ENDS.len()).map(|place| Total::Ended(u8::try_from(place).expect("few"))))
        .map(Total::word)
        .chain(
            super::Durations::START
                .into_iter()
                .flat_map(super::Durations::words),
        )
        .chain(super::Durations::COMPILE.words())
}
