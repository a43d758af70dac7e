//! Output of which every line begins with the request that it belongs to.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::{CHUNK, Output, broken};

/// Bytes after which a line is written although it has not ended.
const LONGEST: usize = 8 << 10;

/// What an instance writes, and for which request. What does not end with a line is held back until it does, until the
/// next request, or until the instance ends: lines of several instances must not mix.
pub(crate) struct Lines {
    label: Mutex<Arc<str>>,
    pieces: [(Output, Mutex<Vec<u8>>); 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            label: Mutex::new("-".into()),
            pieces: [
                (Output::Stdout, Mutex::default()),
                (Output::Stderr, Mutex::default()),
            ],
        })
    }

    /// From here on the lines are this request's.
    pub(crate) fn label(&self, id: &Arc<str>) {
        self.finish();
        *lock(&self.label) = Arc::clone(id);
    }

    /// Writes what is held back; if nobody reads it any more there is nobody to tell.
    fn finish(&self) {
        for (output, piece) in &self.pieces {
            let rest = std::mem::take(&mut *lock(piece));
            if !rest.is_empty() {
                let _ = output.write_all(&self.labelled(&rest));
            }
        }
    }

    fn labelled(&self, line: &[u8]) -> Vec<u8> {
        let label = lock(&self.label);
        [b"[", label.as_bytes(), b"] ", line, b"\n"].concat()
    }

    pub(crate) fn write(&self, output: Output, bytes: &[u8]) -> io::Result<()> {
        let Some((_, piece)) = self.pieces.iter().find(|(own, _)| *own == output) else {
            return Ok(());
        };
        let mut piece = lock(piece);
        let mut ready = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            piece.extend_from_slice(part);
            if piece.ends_with(b"\n") {
                piece.pop();
            } else if piece.len() < LONGEST {
                continue;
            }
            ready.extend(self.labelled(&piece));
            piece.clear();
        }
        if ready.is_empty() {
            Ok(())
        } else {
            output.write_all(&ready)
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.finish();
    }
}

/// One of the two streams.
#[derive(Clone)]
pub(crate) struct Labelled {
    pub(crate) output: Output,
    pub(crate) lines: Arc<Lines>,
}

impl IsTerminal for Labelled {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Labelled {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Labelled {
    async fn ready(&mut self) {}
}

impl OutputStream for Labelled {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lines.write(self.output, &bytes).map_err(broken)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Labelled {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.lines.write(self.output, bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
