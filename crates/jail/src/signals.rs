use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys;

/// Signals whose default action ends a process and that have no other meaning in the runner:
/// wasmtime handles SIGSEGV and its kin itself, and a write to a closed pipe is an error to the
/// guest, not its end.
const ENDING: [c_int; 13] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Lets the signals that end a process end this one, with 128 and their number.
///
/// As the first process of a pid namespace it would otherwise not notice them: the kernel drops
/// what such a process has no handler for. SIGTERM and SIGINT of a guest that serves HTTP
/// (`serves`) are only remembered ([`was_asked_to_end`]): the engine finishes its requests first,
/// and until it listens for the signals itself they must not be lost.
pub fn end_on_signals(serves: bool) {
    for signal in ENDING {
        if serves && (signal == libc::SIGTERM || signal == libc::SIGINT) {
            let _ = sys::set_handler(
                signal,
                remember as extern "C" fn(c_int) as libc::sighandler_t,
                libc::SA_ONSTACK | libc::SA_RESTART,
            );
            continue;
        }
        // On the alternate stack, if the thread has one: a guest may be at the end of its own.
        // A refusal means that the number does not exist here.
        let _ = sys::set_handler(
            signal,
            end_by as extern "C" fn(c_int) as libc::sighandler_t,
            libc::SA_ONSTACK,
        );
    }
    // Real-time signals; the first three belong to the C library.
    for signal in 35..=64 {
        let _ = sys::set_handler(
            signal,
            end_by as extern "C" fn(c_int) as libc::sighandler_t,
            libc::SA_ONSTACK,
        );
    }
}

/// Whether SIGTERM or SIGINT came to a guest that serves. Stays true.
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Whether SIGTERM or SIGINT has come since [`end_on_signals`] for a guest that serves.
#[must_use]
pub fn was_asked_to_end() -> bool {
    ASKED_TO_END.load(Ordering::Relaxed)
}

extern "C" fn remember(_signal: c_int) {
    ASKED_TO_END.store(true, Ordering::Relaxed);
}

/// Ends a runner whose guest has ended. What an ordinary exit gives back piece by piece (the allocator its memory) the
/// kernel takes at once.
pub fn end(code: u8) -> ! {
    sys::exit(code.into())
}

/// Ends the process whatever it is doing: nothing of the runner is worth finishing.
extern "C" fn end_by(signal: c_int) {
    sys::exit(128 + signal);
}
