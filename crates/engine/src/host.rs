use std::sync::Arc;

use crate::counts::Counts;
use crate::limits::NewerLimit;
use crate::trace::Tracer;

/// What the host hears of a guest while it runs, and what it changes; [`Host::default`] hears and changes nothing.
pub struct Host {
    /// The bytes of memory that the guest may have where that changes while it runs; at first it is what the plan says.
    pub newer_limit: NewerLimit,
    /// Whether SIGTERM or SIGINT came to a guest that serves before it could listen for them. Called once, when it does: they
    /// may come from then on, to the thread that calls it.
    pub asked_to_end: fn() -> bool,
    /// What is counted.
    pub counts: Arc<Counts>,
    /// The requests that it answers and sends, where they are traced.
    pub tracer: Option<Tracer>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            newer_limit: Box::new(|| None),
            asked_to_end: || false,
            counts: Counts::none(),
            tracer: None,
        }
    }
}
