use std::ffi::c_int;

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

/// Those by which a guest that serves is asked to end.
const ASKING: [c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Lets the signals that end a process end this one, with 128 and their number.
///
/// As the first process of a pid namespace it would otherwise not notice them: the kernel drops
/// what such a process has no handler for. SIGTERM and SIGINT of a guest that serves HTTP
/// (`serves`) wait until [`let_signals_in`], in the kernel, which drops nothing that is blocked: the
/// engine finishes its requests first. Threads that are made until then never take them.
pub fn end_on_signals(serves: bool) {
    if serves {
        sys::set_signal_mask(&sys::signal_set(&ASKING));
    }
    for signal in ENDING {
        if serves && ASKING.contains(&signal) {
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

/// Whether SIGTERM or SIGINT has come since [`end_on_signals`] for a guest that serves; if not, they go to their handlers
/// from now on. To be called by the thread that called that, once there are handlers.
///
/// A handler that only remembers them until there is another would not do: it may still be about to run, on a second thread,
/// when the first one has looked.
#[must_use]
pub fn let_signals_in() -> bool {
    let came = sys::is_pending(&ASKING);
    if !came {
        sys::set_signal_mask(&sys::signal_set(&[]));
    }
    came
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
