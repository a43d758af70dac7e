use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Bytes that one element of a table takes in the host.
const ELEMENT: u64 = 8;

/// The limit in bytes where it was changed since the last call. Asked whenever a guest wants to grow, which is when it
/// counts: so no thread has to wait for a change.
pub type NewerLimit = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// The memory that all instances of a container may have together.
///
/// wasmtime's own `StoreLimits` bounds each memory for itself, and each request of an HTTP guest
/// has its own store: only a sum over all of them says what the container uses.
pub(crate) struct Budget {
    limit: AtomicU64,
    newer: NewerLimit,
    used: AtomicU64,
    refused: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes; `None` counts, but refuses nothing.
    pub(crate) fn new(limit: Option<u64>, newer: NewerLimit) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            newer,
            used: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        })
    }

    /// Bytes that it allows.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether anybody was ever refused.
    pub(crate) fn was_exceeded(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        if let Some(limit) = (self.newer)() {
            self.limit.store(limit, Ordering::Relaxed);
        }
        let limit = self.limit();
        let taken = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            });
        if taken.is_err() {
            self.refused.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

/// What one store took of the budget; given back when the store is dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    held: u64,
    last: u64,
}

impl Share {
    pub(crate) fn of(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            held: 0,
            last: 0,
        }
    }

    /// Bytes that the store holds.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    fn take(&mut self, bytes: u64) -> bool {
        let taken = self.budget.take(bytes);
        if taken {
            self.held += bytes;
            self.last = bytes;
        }
        taken
    }

    /// wasmtime asked, was allowed, and the system refused.
    fn undo(&mut self) {
        let last = std::mem::take(&mut self.last);
        self.held -= last;
        self.budget.used.fetch_sub(last, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Share {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.take(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.take(desired.saturating_sub(current) as u64 * ELEMENT))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_of_all_stores_count_together_and_come_back() {
        let budget = Budget::new(Some(100), Box::new(|| None));
        let mut one = Share::of(&budget);
        let mut two = Share::of(&budget);
        assert!(one.memory_growing(0, 60, None).expect("asked"));
        assert!(two.memory_growing(0, 40, None).expect("asked"));
        assert!(!budget.was_exceeded());
        assert!(!two.memory_growing(40, 41, None).expect("asked"));
        assert!(budget.was_exceeded());
        drop(one);
        assert!(two.memory_growing(40, 100, None).expect("asked"));
    }

    #[test]
    fn a_newer_limit_counts_from_the_next_growth_on() {
        let newer = std::sync::Mutex::new(vec![None, Some(50), None, Some(200)].into_iter());
        let budget = Budget::new(
            Some(100),
            Box::new(move || newer.lock().expect("one thread").next().flatten()),
        );
        let mut share = Share::of(&budget);
        assert!(share.memory_growing(0, 60, None).expect("asked"));
        // What is above a lowered limit stays, and nothing is added.
        assert!(!share.memory_growing(60, 61, None).expect("asked"));
        assert!(!share.memory_growing(60, 61, None).expect("asked"));
        assert!(share.memory_growing(60, 200, None).expect("asked"));
    }

    #[test]
    fn a_growth_that_the_system_refused_does_not_count() {
        let budget = Budget::new(Some(100), Box::new(|| None));
        let mut share = Share::of(&budget);
        assert!(share.memory_growing(0, 100, None).expect("asked"));
        share
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .expect("undone");
        assert!(share.table_growing(0, 12, None).expect("asked"));
        assert!(!share.table_growing(12, 13, None).expect("asked"));
    }
}
