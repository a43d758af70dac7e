//! Bounded counting of what runs at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many places, and how many of them are taken.
pub(crate) struct Places {
    pub(crate) all: u32,
    taken: Arc<AtomicU32>,
}

/// A place that is taken; dropping it gives it back.
pub(crate) struct Place(Arc<AtomicU32>);

impl Places {
    pub(crate) fn new(all: u32) -> Self {
        Self {
            all,
            taken: Arc::default(),
        }
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// One of them; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < self.all).then_some(taken + 1)
            })
            .ok()
            .map(|_| Place(self.taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_once_and_given_back() {
        let places = Places::new(2);
        let first = places.take().expect("the first");
        let _second = places.take().expect("the second");
        assert!(places.take().is_none());
        drop(first);
        assert_eq!(places.taken(), 1);
        assert!(places.take().is_some());
    }
}
