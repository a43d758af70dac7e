use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::say;
use crate::ending::line;

/// Whether instances of the program can answer more than one request. Those of some toolchains (JavaScript among them)
/// cannot, and fail at the second.
pub(super) struct Reuse {
    /// Instances of WASI 0.3 are made to be reused: what fails there fails for a reason of its own.
    watched: bool,
    /// A second request of some instance was answered.
    works: AtomicBool,
    /// It failed before any was answered.
    fails: AtomicBool,
}

impl Reuse {
    pub(super) const fn new(watched: bool) -> Self {
        Self {
            watched,
            works: AtomicBool::new(false),
            fails: AtomicBool::new(false),
        }
    }

    /// A later request of an instance was answered.
    pub(super) fn worked(&self) {
        self.works.store(true, Ordering::Relaxed);
    }

    /// A later request of an instance failed. Where none was ever answered, that is what the program is like: said
    /// once, and not tried again.
    pub(super) fn failed(&self) {
        if self.watched
            && !self.works.load(Ordering::Relaxed)
            && !self.fails.swap(true, Ordering::Relaxed)
        {
            say(&line(
                "an instance failed at its second request and none ever answered one: from here on every request gets an instance of its own (sampan.dev/reuse-instances: 1 says so from the start)",
            ));
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.fails.load(Ordering::Relaxed)
    }
}
