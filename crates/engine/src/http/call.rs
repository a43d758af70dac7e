//! One request, as the server and the instance that has it both see it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::sync::Notify;

const OPEN: u8 = 0;
const ANSWERED: u8 = 1;
const ABANDONED: u8 = 2;

/// A request from its arrival to the end of its answer.
pub(super) struct Call {
    /// Its name in logs, if they want one.
    pub(super) id: Option<Arc<str>>,
    pub(super) arrived: Instant,
    /// When its time is over.
    pub(super) deadline: Option<Instant>,
    /// Whether its instance had another request before.
    pub(super) reused: AtomicBool,
    /// Whether somebody has said that its time is over.
    pub(super) told: AtomicBool,
    /// Whether its body was longer than it may be.
    pub(super) exceeded: AtomicBool,
    state: AtomicU8,
    changed: Notify,
    /// Of the instance that has it.
    instance: Mutex<Option<Waker>>,
}

impl Call {
    pub(super) fn new(
        id: Option<Arc<str>>,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            arrived,
            deadline,
            reused: AtomicBool::new(false),
            told: AtomicBool::new(false),
            exceeded: AtomicBool::new(false),
            state: AtomicU8::new(OPEN),
            changed: Notify::new(),
            instance: Mutex::default(),
        })
    }

    /// The answer is complete, or nobody waits for a better one.
    pub(super) fn answered(&self) {
        let _ = self
            .state
            .compare_exchange(OPEN, ANSWERED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The client has gone: what its instance does for it is for nobody.
    pub(super) fn abandon(&self) {
        if self
            .state
            .compare_exchange(OPEN, ABANDONED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            self.changed.notify_one();
            let waker = self
                .instance
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.state.load(Ordering::Acquire) == ABANDONED
    }

    pub(super) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether its instance need not go on for it; has the instance woken when it is abandoned.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> bool {
        if self.is_abandoned() || self.is_late() {
            return true;
        }
        let mut instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *instance {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        drop(instance);
        // It may have been abandoned while nobody was to be woken.
        self.is_abandoned()
    }

    /// Waits until its time is over.
    pub(super) async fn late(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => pending().await,
        }
    }

    /// Waits until its time is over or its client has gone.
    pub(super) async fn over(self: Arc<Self>) {
        let changed = async {
            loop {
                let changed = self.changed.notified();
                if self.is_abandoned() {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            () = self.late() => {}
            () = changed => {}
        }
    }
}

/// The requests that an instance has.
#[derive(Default)]
pub(super) struct Calls(Mutex<Vec<Arc<Call>>>);

impl Calls {
    /// One more; those that are over are forgotten.
    pub(super) fn add(&self, call: Arc<Call>) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.retain(|call| call.is_open());
        calls.push(call);
    }

    /// Whether the instance works for nobody any more: the client of each of its requests has gone, or its time is
    /// over. What it does after an answer belongs to the request, and has the request's time.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> bool {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // All are asked, so that each wakes.
        let open = calls.iter().filter(|call| !call.poll_over(cx)).count();
        open == 0 && !calls.is_empty()
    }

    /// When the last of them has no more time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter_map(|call| call.deadline).max()
    }

    /// Whether all of their clients have gone: then an end is no news.
    pub(super) fn are_abandoned(&self) -> bool {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().all(|call| call.is_abandoned())
    }

    /// One that ran out of time, if one did.
    pub(super) fn late(&self) -> Option<Arc<Call>> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().find(|call| call.is_late()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(deadline: Option<Instant>) -> Arc<Call> {
        Call::new(Some("1".into()), Instant::now(), deadline)
    }

    fn over(calls: &Calls) -> bool {
        calls.poll_over(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_instance_works_on_while_one_of_its_clients_waits() {
        let calls = Calls::default();
        assert!(!over(&calls));
        let (one, two) = (call(None), call(None));
        calls.add(Arc::clone(&one));
        calls.add(Arc::clone(&two));
        one.abandon();
        assert!(!over(&calls));
        two.abandon();
        assert!(over(&calls) && calls.are_abandoned() && calls.late().is_none());
    }

    #[test]
    fn what_comes_after_an_answer_has_the_requests_time() {
        let calls = Calls::default();
        let (quick, slow) = (
            call(None),
            call(Some(Instant::now() + Duration::from_secs(60))),
        );
        calls.add(Arc::clone(&quick));
        quick.answered();
        quick.abandon();
        assert!(!over(&calls), "an answered request cannot be abandoned");
        calls.add(slow);
        assert!(!over(&calls));
        let late = Calls::default();
        late.add(call(Some(Instant::now())));
        assert!(over(&late) && late.late().is_some() && !late.are_abandoned());
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_wait() {
        let one = call(None);
        let mut waiting = Box::pin(Arc::clone(&one).over());
        assert!(futures::poll!(&mut waiting).is_pending());
        one.abandon();
        waiting.await;
        // Also one that had gone before.
        one.over().await;
    }
}
