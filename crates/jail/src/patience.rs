//! Asking the kernel again for what it tells nobody about: ever less often, until a deadline.

use std::time::{Duration, Instant};

/// How long the processes of a cgroup may take to end after SIGKILL, or to stand still.
const END: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(20);

/// What is left of the time.
pub(crate) struct Patience {
    end: Instant,
    next: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self {
            end: Instant::now() + END,
            next: FIRST,
        }
    }

    /// How long to wait before asking again; none when it has lasted long enough.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        (Instant::now() < self.end).then_some(wait)
    }
}
