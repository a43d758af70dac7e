//! How a guest ended: the exit code, and what its standard error says about it.

use plan::ExitCode;
use plan::numbers::Trap as Sort;
use wasmtime::{FrameInfo, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::command::say;
use crate::config::BACKTRACE_FRAMES;
use crate::coredump::Left;
use crate::counts;
use crate::grants::GrantError;
use crate::limits::Budget;

/// The end of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its exit code: the guest's own, or one of [`ExitCode`].
    pub code: i32,
    /// Why it ended, if not by itself: what was written to standard error about it, the reason in
    /// the first line.
    pub account: Option<String>,
}

impl Ending {
    /// The guest ended by itself, or was asked to.
    pub(crate) const fn own(code: i32) -> Self {
        Self {
            code,
            account: None,
        }
    }

    /// It did not; says so on standard error.
    pub(crate) fn told(code: ExitCode, account: String) -> Self {
        say(&account);
        Self {
            code: code.into(),
            account: Some(account),
        }
    }
}

/// An ending that is not the guest's own exit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    /// One line, without the name of this program.
    pub(crate) reason: String,
    /// The functions that were running, innermost first, one line each.
    pub(crate) backtrace: Vec<String>,
    /// Which trap it was, if it was one.
    pub(crate) trap: Option<Sort>,
    /// What was left of the guest, where something was to be.
    left: Option<String>,
}

/// Marks an error of instantiation: the program could not even be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the program")]
pub(crate) struct SetUp;

/// The guest's own exit code, if the error is its way of exiting; what went wrong otherwise.
pub(crate) fn judge(error: &wasmtime::Error, budget: &Budget) -> Result<i32, Failure> {
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return Ok(*code);
    }
    if let Some(error) = error.downcast_ref::<GrantError>() {
        return Err(Failure {
            code: ExitCode::NotRunnable,
            reason: error.to_string(),
            backtrace: Vec::new(),
            trap: None,
            left: None,
        });
    }
    let frames = error
        .downcast_ref::<WasmBacktrace>()
        .map(WasmBacktrace::frames)
        .unwrap_or_default();
    let backtrace: Vec<_> = frames
        .iter()
        .take(BACKTRACE_FRAMES.get())
        .map(name)
        .collect();
    let cause = cause(error);
    let place = backtrace
        .first()
        .map(|name| format!(" at {name}"))
        .unwrap_or_default();
    let (code, reason) = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt | Trap::OutOfFuel) => {
            (ExitCode::OutOfTime, format!("out of time: {cause}{place}"))
        }
        // A guest that was refused memory seldom says so: it aborts, which is a trap.
        _ if budget.was_exceeded() => (
            ExitCode::OutOfMemory,
            format!(
                "out of memory: the limit of {} bytes was reached: {cause}{place}",
                budget.limit()
            ),
        ),
        // A start function that traps is a trap; a memory that the engine does not make is not.
        None if error.is::<SetUp>() => (
            ExitCode::NotRunnable,
            format!("cannot set up the program: {cause}"),
        ),
        _ => (ExitCode::Trap, format!("trap: {cause}{place}")),
    };
    let trap = error.downcast_ref::<Trap>().map(|trap| match code {
        ExitCode::OutOfMemory => Sort::OutOfMemory,
        _ => counts::sort(*trap),
    });
    Err(Failure {
        code,
        reason,
        backtrace,
        trap,
        left: error.downcast_ref::<Left>().map(|left| left.0.clone()),
    })
}

/// The innermost error in one line, without wasmtime's prefix.
fn cause(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    let text = text.strip_prefix("wasm trap: ").unwrap_or(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The function's name as the guest's compiler wrote it, without rustc's hash.
fn name(frame: &FrameInfo) -> String {
    let Some(name) = frame.func_name() else {
        return format!("function {}", frame.func_index());
    };
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    }
    .to_owned()
}

impl Failure {
    /// Which trap it was for a guest that ends by it: what a host function ended it for counts too.
    pub(crate) const fn end(&self) -> Option<Sort> {
        match (self.trap, self.code) {
            (Some(trap), _) => Some(trap),
            (None, ExitCode::OutOfMemory) => Some(Sort::OutOfMemory),
            (None, ExitCode::Trap) => Some(Sort::Other),
            (None, _) => None,
        }
    }

    /// All of it, for the end of a command.
    pub(crate) fn text(&self) -> String {
        let mut text = self.line();
        // Before the backtrace: what is too long for the kubelet is cut at its end.
        if let Some(left) = &self.left {
            text.push_str(&line(left));
        }
        for (depth, name) in self.backtrace.iter().enumerate() {
            text.push_str(&format!("  {depth}: {name}\n"));
        }
        text
    }

    /// The one line, for a request among others.
    pub(crate) fn line(&self) -> String {
        line(&self.reason)
    }
}

/// A line of ours on the guest's standard error.
pub(crate) fn line(text: &str) -> String {
    format!("sampan: {text}\n")
}
