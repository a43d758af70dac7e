//! The shim's own log: into the FIFO `log` of the bundle, which containerd copies to its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// A log that never waits: while containerd is away the pipe fills up, and then lines are lost
/// rather than containers stopped.
struct Lossy(File);

impl Write for Lossy {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match self.0.write(line) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(line.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Starts logging into the bundle's FIFO; without one (started by hand) nothing is logged.
pub(crate) fn start(bundle: &Path, debug: bool) {
    // Read and write: the pipe outlives a restart of containerd without a broken pipe.
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(bundle.join("log"));
    let Ok(fifo) = opened else { return };
    let level = if debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    // A second start in one process cannot happen; if it did, the first log stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        // Spans are of level debug alone: how long each step of a request took.
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_target(false)
        .with_writer(Mutex::new(Lossy(fifo)))
        .try_init();
}
