use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Bytes that one element of a table takes in the host.
const ELEMENT: u64 = 8;

/// The memory that all instances of a container may have together.
///
/// wasmtime's own `StoreLimits` bounds each memory for itself, and each request of an HTTP guest
/// has its own store: only a sum over all of them says what the container uses.
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    refused: AtomicBool,
}

impl Budget {
    /// A budget of `limit` bytes; `None` counts, but refuses nothing.
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        })
    }

    /// Bytes that it allows.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether anybody was ever refused.
    pub(crate) fn was_exceeded(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
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
        let budget = Budget::new(Some(100));
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
    fn a_growth_that_the_system_refused_does_not_count() {
        let budget = Budget::new(Some(100));
        let mut share = Share::of(&budget);
        assert!(share.memory_growing(0, 100, None).expect("asked"));
        share
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .expect("undone");
        assert!(share.table_growing(0, 12, None).expect("asked"));
        assert!(!share.table_growing(12, 13, None).expect("asked"));
    }
}
