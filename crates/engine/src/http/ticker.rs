use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How long an instance computes until it lets the others on, and how exact a request's time is.
const TICK: Duration = Duration::from_millis(10);
/// Ticks without an instance after which the thread sleeps until the next: a quiet pod costs nothing, and a busy one
/// does not wake it for every request.
const PATIENCE: u32 = 100;

/// Lets time pass for guests: moves the engine's epoch on while there are instances. A thread of its own, because the
/// threads that run guests may all be computing.
pub(super) struct Ticker {
    state: Arc<State>,
    /// Started with the first instance.
    thread: OnceLock<Option<Thread>>,
}

struct State {
    engine: Engine,
    instances: AtomicUsize,
    asleep: AtomicBool,
}

/// While it lives, time passes.
pub(super) struct Ticking(Arc<State>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, SeqCst);
    }
}

impl Ticker {
    pub(super) fn new(engine: Engine) -> Self {
        let state = State {
            engine,
            instances: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
        };
        Self {
            state: Arc::new(state),
            thread: OnceLock::new(),
        }
    }

    /// For the life of an instance.
    pub(super) fn begin(&self) -> Ticking {
        self.state.instances.fetch_add(1, SeqCst);
        let ticking = Ticking(Arc::clone(&self.state));
        let thread = self.thread.get_or_init(|| {
            let state = Arc::clone(&self.state);
            let spawned = thread::Builder::new()
                .name("ticker".to_owned())
                .spawn(move || state.run());
            // Without it guests are not interrupted; they run all the same.
            spawned.ok().map(|handle| handle.thread().clone())
        });
        if self.state.asleep.load(SeqCst)
            && let Some(thread) = thread
        {
            thread.unpark();
        }
        ticking
    }
}

impl State {
    fn run(&self) {
        let mut quiet = 0;
        loop {
            // An instance that begins may end it early, which is a tick like any other.
            thread::park_timeout(TICK);
            if self.instances.load(SeqCst) > 0 {
                quiet = 0;
                self.engine.increment_epoch();
                continue;
            }
            quiet += 1;
            if quiet >= PATIENCE {
                self.asleep.store(true, SeqCst);
                // Whoever comes from here on sees that it sleeps; whoever came before is seen.
                if self.instances.load(SeqCst) == 0 {
                    thread::park();
                }
                self.asleep.store(false, SeqCst);
                quiet = 0;
            }
        }
    }
}
