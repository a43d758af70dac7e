//! What a guest's call wakes in the middle of its own work.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Polls futures that wake themselves while they are polled, and are then done.
///
/// wasmtime's event loop gives itself the result of a call by a channel, which wakes the task that is running. An executor
/// takes that for the wish to run again, and has another thread look for it: a thread that is woken for nothing, for each
/// request.
#[derive(Default)]
pub(super) struct Hushed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    task: AtomicWaker,
    /// It is being polled.
    busy: AtomicBool,
    /// It was woken since it was last polled.
    woken: AtomicBool,
}

impl Hushed {
    /// Polls the future; its task is woken when it ought to be polled again, and not while this goes on.
    pub(super) fn poll<F: Future>(
        &self,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let Self(shared) = self;
        shared.task.register(cx.waker());
        shared.woken.store(false, SeqCst);
        shared.busy.store(true, SeqCst);
        let waker = Waker::from(Arc::clone(shared));
        let poll = future.poll(&mut Context::from_waker(&waker));
        shared.busy.store(false, SeqCst);
        if poll.is_pending() && shared.woken.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        poll
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        // Whoever polls looks once more when it has said that it is not busy.
        if !self.busy.load(SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often a task is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_unless_it_is_done() {
        let (task, hushed) = (Arc::new(Task::default()), Hushed::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let woken = || task.0.swap(0, SeqCst);
        let mut kept = None;

        let mut done = pin!(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Ready(7)
        }));
        assert_eq!(hushed.poll(done.as_mut(), &mut cx), Poll::Ready(7));
        assert_eq!(woken(), 0);

        let mut again = pin!(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(hushed.poll(again.as_mut(), &mut cx).is_pending());
        assert_eq!(woken(), 1);

        let mut later = pin!(poll_fn(|cx| {
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        assert!(hushed.poll(later.as_mut(), &mut cx).is_pending());
        assert_eq!(woken(), 0);
        kept.expect("a waker").wake();
        assert_eq!(woken(), 1);
    }
}
