use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// The clock by which a connection waits for headers.
///
/// hyper takes its wait back when a header has come and makes another for the next. With tokio's timers as they are,
/// each of the two turns at a lock that all connections share, for a time that almost never passes. This keeps the one
/// entry that it has and moves its time on, which takes no lock.
#[derive(Clone, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Entry>>>);

type Entry = Pin<Box<tokio::time::Sleep>>;

/// A wait; its entry is the next one's when it is dropped.
struct Wait {
    entry: Option<Entry>,
    home: Patience,
}

impl Patience {
    fn kept(&self) -> MutexGuard<'_, Option<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for Patience {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + time)
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn Sleep>> {
        let until = tokio::time::Instant::from_std(until);
        let entry = self.kept().take().map(|mut entry| {
            entry.as_mut().reset(until);
            entry
        });
        Box::pin(Wait {
            entry: Some(entry.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(until)))),
            home: self.clone(),
        })
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.entry {
            Some(entry) => entry.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Sleep for Wait {}

impl Drop for Wait {
    fn drop(&mut self) {
        *self.home.kept() = self.entry.take();
    }
}
