//! An instance of a guest that answers requests, from its birth to its end.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use plan::Serving;
use plan::numbers::Count;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Sleep, sleep_until, timeout};
use wasmtime::component::GuestTaskId;
use wasmtime::{Engine, Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use crate::command::say;
use crate::config::CONCURRENT;
use crate::coredump::Dumps;
use crate::counts::Counts;
use crate::ending::{judge, line};
use crate::grants::{Grants, Threads};
use crate::http::call::{Call, Calls};
use crate::http::reuse::Reuse;
use crate::http::ticker::{Ticker, Ticking};
use crate::limits::Budget;
use crate::state::ComponentState;
use crate::trace::Current;

/// How long an instance without a request is kept.
const IDLE: Duration = Duration::from_secs(1);

/// Makes instances.
pub(super) struct Workers {
    pub(super) pre: ProxyPre<ComponentState>,
    pub(super) grants: Grants,
    pub(super) budget: Arc<Budget>,
    pub(super) serving: Serving,
    pub(super) reuse: Arc<Reuse>,
    /// One permit per instance that lives.
    pub(super) places: Arc<Semaphore>,
    /// Lets time pass for those that live.
    pub(super) ticker: Ticker,
    /// Becomes true when the server ends.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Workers {
    fn engine(&self) -> &Engine {
        match &self.pre {
            ProxyPre::P2(pre) => pre.engine(),
            ProxyPre::P3(pre) => pre.engine(),
        }
    }

    /// Requests that an instance answers at once, and in its life.
    fn requests(&self) -> (usize, usize) {
        if self.reuse.is_given_up() {
            return (1, 1);
        }
        let (at_once, in_all) = match self.pre {
            ProxyPre::P2(_) => (1, self.serving.reuse_0_2),
            // Who wants to know whose line it is, or whose request, must not mix them.
            ProxyPre::P3(_) if self.serving.log_request_id || self.grants.tracer.is_some() => {
                (1, self.serving.reuse_0_3)
            }
            ProxyPre::P3(_) => (CONCURRENT, self.serving.reuse_0_3),
        };
        (at_once as usize, in_all as usize)
    }
}

impl HandlerState for Workers {
    type StoreData = ComponentState;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<ComponentState, Expiration, Worker>> {
        let place = Arc::clone(&self.places).acquire_owned().await?;
        let ticking = self.ticker.begin();
        let lines = self.grants.lines(self.serving.log_request_id);
        let mut store = ComponentState::store(
            self.engine(),
            &self.grants,
            Threads::Shared,
            lines,
            &self.budget,
        )?;
        let born = Instant::now();
        // Its start functions are code of the guest's as well.
        let made = self.pre.instantiate_async(&mut store);
        let proxy = match self.serving.request_timeout {
            Some(time) => timeout(time, made).await.map_err(|_| {
                wasmtime::format_err!("the program took longer to start than a request may")
            })?,
            None => made.await,
        }?;
        let counts = self.grants.counts();
        counts.one(Count::Instance);
        let calls = Arc::new(Calls::default());
        let (at_once, in_all) = self.requests();
        Ok(Instance {
            store,
            proxy,
            view: ComponentState::http,
            expiration: Expiration::new(self.stopping.clone(), Arc::clone(&calls)),
            state: Worker {
                at_once,
                in_all,
                retires: self.serving.max_age.map(|age| born + age),
                calls,
                served: AtomicU64::new(0),
                held: AtomicU64::new(0),
                budget: Arc::clone(&self.budget),
                reuse: Arc::clone(&self.reuse),
                dumps: self.grants.dumps.clone(),
                bereaved: Mutex::default(),
                fuel: self.grants.fuel,
                counts: Arc::clone(counts),
                _place: place,
                _ticking: ticking,
            },
        })
    }
}

/// Tells a request how the instance that had it ended: `Some` reason if badly.
pub(super) type Obituary = oneshot::Sender<Option<String>>;

/// What comes with a request.
pub(super) struct Ticket {
    pub(super) call: Arc<Call>,
    pub(super) obituary: Obituary,
    /// What the guest sends meanwhile belongs to this, where requests are traced.
    pub(super) current: Option<Current>,
}

/// What an instance knows of itself.
pub(super) struct Worker {
    at_once: usize,
    in_all: usize,
    /// After this it takes no further request.
    retires: Option<Instant>,
    calls: Arc<Calls>,
    served: AtomicU64,
    /// Bytes of memory that it held when its last request came.
    held: AtomicU64,
    budget: Arc<Budget>,
    reuse: Arc<Reuse>,
    dumps: Option<Arc<Dumps>>,
    /// The requests that it had; those that were answered do not listen any more.
    bereaved: Mutex<Vec<Obituary>>,
    /// What it had.
    fuel: Option<u64>,
    counts: Arc<Counts>,
    _place: OwnedSemaphorePermit,
    _ticking: Ticking,
}

impl Worker {
    /// Whether its time as one of several is over: old, swollen (half of what the container may have), or of a kind
    /// that does not bear it.
    fn is_spent(&self) -> bool {
        self.retires
            .is_some_and(|retires| Instant::now() >= retires)
            || self.held.load(Ordering::Relaxed) > self.budget.limit() / 2
            || self.reuse.is_given_up()
    }

    /// A request begins.
    pub(super) fn begin(&self, state: &mut ComponentState, ticket: Ticket) -> Arc<Call> {
        let Ticket {
            call,
            obituary,
            current,
        } = ticket;
        if current.is_some() {
            state.follow(current);
        }
        let before = self.served.fetch_add(1, Ordering::Relaxed);
        call.reused.store(before > 0, Ordering::Relaxed);
        self.held.store(state.held(), Ordering::Relaxed);
        if let Some(id) = &call.id {
            state.label(id);
        }
        self.calls.add(Arc::clone(&call));
        let mut bereaved = self.bereaved.lock().unwrap_or_else(PoisonError::into_inner);
        bereaved.retain(|obituary| !obituary.is_closed());
        bereaved.push(obituary);
        call
    }
}

impl WorkerState for Worker {
    type StoreData = ComponentState;
    type RequestData = Ticket;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.in_all || total > 0 && self.is_spent() {
            ShouldAccept::Never
        } else if concurrent >= self.at_once {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, ComponentState>,
        ticket: Ticket,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        Box::pin(self.begin(store.data_mut(), ticket).over())
    }

    fn drop(&self, mut store: Store<ComponentState>, result: wasmtime::Result<()>) {
        let error = result.err();
        let failure = error
            .as_ref()
            .and_then(|error| judge(error, &self.budget).err());
        if let Some(trap) = failure.as_ref().and_then(|failure| failure.trap) {
            self.counts.trapped(trap);
        }
        if let Some(fuel) = self.fuel {
            let left = store.get_fuel().unwrap_or(fuel);
            self.counts.add(Count::Fuel, fuel.saturating_sub(left));
        }
        let bereaved =
            std::mem::take(&mut *self.bereaved.lock().unwrap_or_else(PoisonError::into_inner));
        let mut told = false;
        for obituary in bereaved {
            told |= obituary
                .send(failure.as_ref().map(|failure| failure.reason.clone()))
                .is_ok();
        }
        if let Some(failure) = failure.as_ref().filter(|_| !told) {
            match self.calls.late() {
                // Every answer was on its way already: nobody else will say what went wrong after it.
                None if self.calls.are_abandoned() => {}
                None => say(&failure.line()),
                Some(late) if late.told.swap(true, Ordering::Relaxed) => {}
                Some(_) => say(&line(
                    "out of time: the guest was still at work for a request that it had answered (sampan.dev/request-timeout)",
                )),
            }
        }
        if let (Some(dumps), Some(error), Some(failure)) = (&self.dumps, &error, &failure) {
            dumps.leave_beside_others(&mut store, error, &failure.reason);
        }
        drop(store);
    }
}

/// When an instance ends that does not end by itself.
///
/// Most instances have one request without a bound and never wait for anything here: timer and end of the server are
/// made when they are first waited for.
pub(super) struct Expiration {
    timer: Option<Pin<Box<Sleep>>>,
    calls: Arc<Calls>,
    stopping: watch::Receiver<bool>,
    /// Waits for the server's end.
    stop: Option<Stop>,
    stopped: bool,
}

/// Until the server ends.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender gone is a server gone.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

type Stop = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Expiration {
    const fn new(stopping: watch::Receiver<bool>, calls: Arc<Calls>) -> Self {
        Self {
            timer: None,
            calls,
            stopping,
            stop: None,
            stopped: false,
        }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let until = tokio::time::Instant::from_std(until);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let stop = self
            .stop
            .get_or_insert_with(|| -> Stop { Box::pin(stopped(self.stopping.clone())) });
        self.stopped = self.stopped || stop.as_mut().poll(cx).is_ready();
        self.stopped
    }
}

impl WorkerExpiration for Expiration {
    /// Asked from outside of the guest's event loop, which a guest that computes does not leave.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        if status != WorkerStatus::Idle {
            if self.calls.poll_over(cx) {
                return Poll::Ready(());
            }
            // Requests without a bound have all the time that they want.
            return match self.calls.deadline() {
                Some(deadline) => self.poll_until(cx, deadline),
                None => Poll::Pending,
            };
        }
        if self.poll_stop(cx) {
            return Poll::Ready(());
        }
        self.poll_until(cx, start + IDLE)
    }
}
