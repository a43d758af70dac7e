//! An instance of a guest that answers requests, from its birth to its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Sleep, sleep_until};
use wasmtime::component::GuestTaskId;
use wasmtime::{Engine, Store, StoreContextMut};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use crate::command::say;
use crate::config::CONCURRENT;
use crate::ending::judge;
use crate::grants::{Grants, Threads};
use crate::http::Egress;
use crate::limits::Budget;
use crate::state::ComponentState;

/// Requests that one instance of a WASI 0.3 guest answers in its life. An instance of 0.2
/// answers one: its toolchains count on that.
const REUSE: usize = 128;
/// How long an instance without a request is kept.
const IDLE: Duration = Duration::from_secs(1);

/// Makes instances.
pub(super) struct Workers {
    pub(super) pre: ProxyPre<ComponentState>,
    pub(super) grants: Grants,
    pub(super) budget: Arc<Budget>,
    /// One permit per instance that lives.
    pub(super) places: Arc<Semaphore>,
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
}

impl HandlerState for Workers {
    type StoreData = ComponentState;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<ComponentState, Expiration, Worker>> {
        let place = Arc::clone(&self.places).acquire_owned().await?;
        let mut store = ComponentState::store(
            self.engine(),
            &self.grants,
            Threads::Shared,
            Egress::new(),
            &self.budget,
        )?;
        let proxy = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy,
            view: ComponentState::http,
            expiration: Expiration::new(self.stopping.clone()),
            state: Worker {
                reuse: matches!(self.pre, ProxyPre::P3(_)),
                budget: Arc::clone(&self.budget),
                bereaved: Mutex::default(),
                _place: place,
            },
        })
    }
}

/// Tells a request how the instance that had it ended: `Some` reason if badly.
pub(super) type Obituary = oneshot::Sender<Option<String>>;

/// What an instance knows of itself.
pub(super) struct Worker {
    reuse: bool,
    budget: Arc<Budget>,
    /// The requests that it had; those that were answered do not listen any more.
    bereaved: Mutex<Vec<Obituary>>,
    _place: OwnedSemaphorePermit,
}

impl WorkerState for Worker {
    type StoreData = ComponentState;
    type RequestData = Obituary;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        let (at_once, in_all) = if self.reuse {
            (CONCURRENT as usize, REUSE)
        } else {
            (1, 1)
        };
        if total >= in_all {
            ShouldAccept::Never
        } else if concurrent >= at_once {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, ComponentState>,
        obituary: Obituary,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        let mut bereaved = self.bereaved.lock().unwrap_or_else(PoisonError::into_inner);
        bereaved.retain(|obituary| !obituary.is_closed());
        bereaved.push(obituary);
        // No request timeout.
        Box::pin(std::future::pending())
    }

    fn drop(&self, store: Store<ComponentState>, result: wasmtime::Result<()>) {
        let failure = result.map_or_else(|error| judge(&error, &self.budget).err(), |()| None);
        let bereaved =
            std::mem::take(&mut *self.bereaved.lock().unwrap_or_else(PoisonError::into_inner));
        let mut told = false;
        for obituary in bereaved {
            told |= obituary
                .send(failure.as_ref().map(|failure| failure.reason.clone()))
                .is_ok();
        }
        // Every answer was on its way already: nobody else will say what went wrong after it.
        if let Some(failure) = failure.filter(|_| !told) {
            say(&failure.line());
        }
        drop(store);
    }
}

/// When an instance without a request ends.
pub(super) struct Expiration {
    timer: Pin<Box<Sleep>>,
    since: Option<Instant>,
    stop: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    stopped: bool,
}

impl Expiration {
    fn new(mut stopping: watch::Receiver<bool>) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(IDLE)),
            since: None,
            stop: Box::pin(async move {
                // The sender gone is a server gone.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            }),
            stopped: false,
        }
    }
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        if status != WorkerStatus::Idle {
            // Requests have all the time that they want; the next idle time starts anew.
            self.since = None;
            return Poll::Pending;
        }
        if !self.stopped {
            self.stopped = self.stop.as_mut().poll(cx).is_ready();
        }
        if self.stopped {
            return Poll::Ready(());
        }
        if self.since != Some(start) {
            self.since = Some(start);
            self.timer = Box::pin(sleep_until((start + IDLE).into()));
        }
        self.timer.as_mut().poll(cx)
    }
}
