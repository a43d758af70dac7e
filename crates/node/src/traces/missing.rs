//! What was not exported, and what is said of it: not all the time, but all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often it is said at most.
const SAY: Duration = Duration::from_secs(60);

/// What did not come as far as a batch.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Spans for which there was no room, here or on their way.
    pub(super) spans: AtomicU64,
    /// Packets that are no parcels.
    pub(super) unreadable: AtomicU64,
}

/// All that has not been said yet.
#[derive(Debug)]
pub(super) struct Missing {
    lost: Arc<Lost>,
    /// Spans that the collector has not taken.
    pub(super) failed: u64,
    /// Why it did not, the last time.
    pub(super) trouble: Option<String>,
    said: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct Report {
    lost: u64,
    unreadable: u64,
    failed: u64,
    why: String,
}

impl Missing {
    pub(super) const fn new(lost: Arc<Lost>) -> Self {
        Self {
            lost,
            failed: 0,
            trouble: None,
            said: None,
        }
    }

    /// Says what went wrong, unless that was said a moment ago.
    pub(super) fn say(&mut self) {
        let now = Instant::now();
        if self.said.is_none_or(|said| now - said >= SAY) && self.tell() {
            self.said = Some(now);
        }
    }

    /// Says what is left, at the end.
    pub(super) fn say_the_rest(mut self) {
        self.tell();
    }

    fn tell(&mut self) -> bool {
        let Some(Report {
            lost,
            unreadable,
            failed,
            why,
        }) = self.report()
        else {
            return false;
        };
        tracing::warn!(lost, unreadable, failed, "spans were not exported: {why}");
        true
    }

    /// What there is to say; from then on it counts as said.
    fn report(&mut self) -> Option<Report> {
        let lost = self.lost.spans.swap(0, Ordering::Relaxed);
        let unreadable = self.lost.unreadable.swap(0, Ordering::Relaxed);
        let failed = std::mem::take(&mut self.failed);
        let trouble = self.trouble.take();
        // The collector first: where it fails the queue is soon full, too.
        let why = if failed > 0 {
            trouble.unwrap_or_else(|| "the collector has not answered".to_owned())
        } else if lost > 0 {
            "too many at once".to_owned()
        } else if unreadable > 0 {
            "packets that are none of ours".to_owned()
        } else {
            return None;
        };
        Some(Report {
            lost,
            unreadable,
            failed,
            why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lost: u64, unreadable: u64, failed: u64, why: &str) -> Report {
        Report {
            lost,
            unreadable,
            failed,
            why: why.to_owned(),
        }
    }

    #[test]
    fn the_reason_stays_with_its_spans_until_it_is_said() {
        let lost = Arc::new(Lost::default());
        let mut missing = Missing::new(Arc::clone(&lost));
        assert_eq!(missing.report(), None);
        missing.say();
        assert_eq!(missing.said, None, "there was nothing to say");

        missing.failed = 2;
        missing.trouble = Some("connection refused".to_owned());
        missing.say();
        assert_eq!((missing.failed, missing.trouble.as_deref()), (0, None));
        // So soon nothing is said, and nothing forgotten.
        missing.failed = 3;
        missing.trouble = Some("unavailable".to_owned());
        lost.spans.store(5, Ordering::Relaxed);
        missing.say();
        assert_eq!(missing.failed, 3);
        assert_eq!(missing.report(), Some(report(5, 0, 3, "unavailable")));
        assert_eq!(missing.report(), None);
    }

    #[test]
    fn each_reason_is_told_as_what_it_is() {
        let lost = Arc::new(Lost::default());
        let mut missing = Missing::new(Arc::clone(&lost));
        lost.unreadable.store(1, Ordering::Relaxed);
        let unreadable = report(0, 1, 0, "packets that are none of ours");
        assert_eq!(missing.report(), Some(unreadable));
        lost.spans.store(7, Ordering::Relaxed);
        lost.unreadable.store(1, Ordering::Relaxed);
        assert_eq!(missing.report(), Some(report(7, 1, 0, "too many at once")));
        missing.failed = 1;
        let silent = report(0, 0, 1, "the collector has not answered");
        assert_eq!(missing.report(), Some(silent));
    }
}
