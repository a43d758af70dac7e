//! Instances that answer one request at a time, as those of WASI 0.2 do.
//!
//! wasmtime's `ProxyHandler` is made for several at once: it asks to be polled again after each request that it takes, which
//! wakes a second thread for nothing (docs/performance.md, "HTTP").

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use futures::FutureExt as _;
use futures::channel::oneshot;
use wasmtime::AsContextMut as _;
use wasmtime_wasi_http::handler::{
    HandlerState as _, Instance, InstantiationError, Prepared, Request, Response, ShouldAccept,
    TrapOrPanicError, WorkerExpiration as _, WorkerState as _, WorkerStatus,
};

use crate::http::hushed::Hushed;
use crate::http::worker::{Expiration, Ticket, Worker, Workers};
use crate::state::ComponentState;

/// Hands requests to instances: to one that waits, else to a new one.
#[derive(Clone)]
pub(super) struct Single(Arc<Inner>);

struct Inner {
    workers: Workers,
    /// How to reach those that wait, the last that was at work at the end: its memory is the warmest.
    waiting: Mutex<Vec<oneshot::Sender<Order>>>,
}

/// A request, and where its answer goes.
struct Order {
    ticket: Ticket,
    request: Request,
    answer: oneshot::Sender<wasmtime::Result<Response>>,
}

impl Single {
    pub(super) fn new(workers: Workers) -> Self {
        Self(Arc::new(Inner {
            workers,
            waiting: Mutex::default(),
        }))
    }

    /// As `ProxyHandler::handle`, with the same errors.
    pub(super) async fn handle(
        &self,
        ticket: Ticket,
        request: Request,
    ) -> wasmtime::Result<Response> {
        let (answer, answered) = oneshot::channel();
        let mut order = Order {
            ticket,
            request,
            answer,
        };
        loop {
            let Some(instance) = self.waiting(Vec::pop) else {
                tokio::spawn(self.clone().live(order));
                break;
            };
            match instance.send(order) {
                Ok(()) => break,
                // It has just ended.
                Err(back) => order = back,
            }
        }
        answered.await.map_err(|_| TrapOrPanicError)?
    }

    fn waiting<T>(&self, change: impl FnOnce(&mut Vec<oneshot::Sender<Order>>) -> T) -> T {
        change(
            &mut self
                .0
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The life of an instance.
    async fn live(self, first: Order) {
        let mut instance = match self.0.workers.instantiate().await {
            Ok(instance) => instance,
            Err(error) => {
                let error = InstantiationError {
                    request_data: first.ticket,
                    request: Mutex::new(first.request),
                    error: Arc::new(error),
                };
                let _ = first.answer.send(Err(error.into()));
                return;
            }
        };
        let hushed = Hushed::default();
        let mut order = first;
        let mut served = 0;
        let result = loop {
            if let Err(error) = answer(&mut instance, &hushed, order).await {
                break Err(error);
            }
            served += 1;
            let accepts = instance.state.should_accept_request(0, served);
            if !matches!(accepts, ShouldAccept::Yes) {
                break Ok(());
            }
            match self.next(&mut instance.expiration).await {
                Some(next) => order = next,
                None => break Ok(()),
            }
        };
        instance.state.drop(instance.store, result);
    }

    /// Waits for a further request; `None` if the time for that is over.
    async fn next(&self, expiration: &mut Expiration) -> Option<Order> {
        let (place, mut order) = oneshot::channel();
        self.waiting(|waiting| waiting.push(place));
        let since = Instant::now();
        let next = poll_fn(|cx| {
            if let Poll::Ready(order) = order.poll_unpin(cx) {
                return Poll::Ready(order.ok());
            }
            let expired = Pin::new(&mut *expiration).poll(cx, WorkerStatus::Idle, since);
            expired.map(|()| None)
        })
        .await;
        if next.is_some() {
            return next;
        }
        order.close();
        self.waiting(|waiting| waiting.retain(|place| !place.is_canceled()));
        // One may have come just before.
        order.try_recv().ok().flatten()
    }
}

/// Has the guest answer; ends when the guest has returned, which may be later.
async fn answer(
    instance: &mut Instance<ComponentState, Expiration, Worker>,
    hushed: &Hushed,
    order: Order,
) -> wasmtime::Result<()> {
    let Instance {
        store,
        proxy,
        view,
        expiration,
        state,
    } = instance;
    let Order {
        ticket,
        request,
        answer,
    } = order;
    let prepared = Prepared::new(store.as_context_mut(), proxy, request, *view, answer)?;
    state.begin(store.data_mut(), ticket);
    // While it waited, time went on.
    store.set_epoch_deadline(1);
    let since = Instant::now();
    // It is bounded from outside, where a guest that computes does not hold that up.
    let work = store.run_concurrent(async |accessor| prepared.run(accessor, pending()).await);
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = hushed.poll(work.as_mut(), cx) {
            return Poll::Ready(done.flatten().map(drop));
        }
        let expired = Pin::new(&mut *expiration).poll(cx, WorkerStatus::Requests, since);
        expired.map(|()| Err(wasmtime::format_err!("guest timed out")))
    })
    .await
}
