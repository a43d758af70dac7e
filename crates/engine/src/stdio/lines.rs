//! Output of which every line begins with the request that it belongs to, or is a JSON object.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use plan::LogFormat;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::entry::{Entry, Object};
use super::{CHUNK, Output, broken};

/// Bytes after which a line is written although it has not ended.
const LONGEST: usize = 8 << 10;

/// What an instance writes, and for which request. What does not end with a line is held back until it does, until the
/// next request, or until the instance ends: lines of several instances must not mix.
pub(crate) struct Lines {
    format: LogFormat,
    /// Whether it is told whose each line is.
    labelled: bool,
    label: Mutex<Arc<str>>,
    pieces: [(Output, Mutex<Vec<u8>>); 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    pub(crate) fn new(format: LogFormat, labelled: bool) -> Arc<Self> {
        Arc::new(Self {
            format,
            labelled,
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
    pub(crate) fn finish(&self) {
        for (output, piece) in &self.pieces {
            let rest = std::mem::take(&mut *lock(piece));
            if !rest.is_empty() {
                let _ = output.write_all(&self.written(*output, &rest, false));
            }
        }
    }

    /// A line as it is written.
    fn written(&self, output: Output, line: &[u8], partial: bool) -> Vec<u8> {
        let label = lock(&self.label);
        match self.format {
            LogFormat::Text => [b"[", label.as_bytes(), b"] ", line, b"\n"].concat(),
            LogFormat::Json => Object {
                request: self.labelled.then_some(&**label),
                partial,
                ..Object::new(output, line)
            }
            .line(),
        }
    }

    /// Writes an entry of `wasi:logging` or `wasi:otel`.
    pub(crate) fn log(&self, entry: &Entry<'_>) -> io::Result<()> {
        if self.format == LogFormat::Text {
            return self.write(Output::Stderr, entry.line().as_bytes());
        }
        let label = lock(&self.label);
        let object = Object {
            level: Some(entry.level),
            context: Some(entry.context).filter(|context| !context.is_empty()),
            trace_id: entry.span.map(|(trace, _)| trace),
            span_id: entry.span.map(|(_, span)| span),
            attributes: entry.attributes,
            request: self.labelled.then_some(&**label),
            ..Object::new(Output::Stderr, entry.text().as_bytes())
        };
        Output::Stderr.write_all(&object.line())
    }

    pub(crate) fn write(&self, output: Output, bytes: &[u8]) -> io::Result<()> {
        let Some((_, piece)) = self.pieces.iter().find(|(own, _)| *own == output) else {
            return Ok(());
        };
        let mut piece = lock(piece);
        let ready = self.take(output, &mut piece, bytes);
        if ready.is_empty() {
            Ok(())
        } else {
            output.write_all(&ready)
        }
    }

    /// What can be written of a piece and what follows it; the rest becomes the piece.
    fn take(&self, output: Output, piece: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
        let mut ready = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            piece.extend_from_slice(part);
            let ended = piece.ends_with(b"\n");
            if ended {
                piece.pop();
            }
            // Whoever reads JSON reads a line at a time, and has room for so much.
            while self.format == LogFormat::Json && piece.len() > LONGEST {
                let rest = piece.split_off(end_of_text(piece, LONGEST));
                ready.extend(self.written(output, piece, true));
                *piece = rest;
            }
            if !ended && piece.len() < LONGEST {
                continue;
            }
            ready.extend(self.written(output, piece, !ended));
            piece.clear();
        }
        ready
    }
}

/// The last place, at most `most`, where a character of UTF-8 ends.
fn end_of_text(bytes: &[u8], most: usize) -> usize {
    let goes_on = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // What is no UTF-8 is cut anywhere.
    (most.saturating_sub(3)..=most)
        .rev()
        .find(|at| !goes_on(at))
        .unwrap_or(most)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_behind_its_label() {
        let lines = Lines::new(LogFormat::Text, true);
        let mut piece = Vec::new();
        let ready = lines.take(Output::Stdout, &mut piece, b"one\ntwo\nth");
        assert_eq!(ready, b"[-] one\n[-] two\n");
        assert_eq!(piece, b"th");
    }

    #[test]
    fn a_long_line_is_several_objects_that_are_text() {
        let lines = Lines::new(LogFormat::Json, false);
        let mut piece = Vec::new();
        // Two bytes each, so that 8192 of them end within one of the first, odd, byte.
        let long = format!("x{}\n", "ä".repeat(LONGEST));
        let ready = lines.take(Output::Stdout, &mut piece, long.as_bytes());
        assert!(piece.is_empty());
        let ready = String::from_utf8(ready).expect("UTF-8");
        let objects: Vec<serde_json::Value> = ready
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let partial: Vec<_> = objects
            .iter()
            .map(|object| object["partial"] == true)
            .collect();
        assert_eq!(partial, [true, true, false]);
        let messages = objects
            .iter()
            .map(|object| object["message"].as_str().expect("text"));
        assert_eq!(messages.collect::<String>() + "\n", long);
        assert!(objects[0].get("request").is_none() && objects[0]["stream"] == "stdout");
    }

    #[test]
    fn a_label_is_a_field() {
        let lines = Lines::new(LogFormat::Json, true);
        lines.label(&"abc".into());
        let ready = lines.take(Output::Stderr, &mut Vec::new(), b"x\n");
        let object: serde_json::Value = serde_json::from_slice(&ready).expect("JSON");
        assert_eq!(
            (&object["request"], &object["message"]),
            (&"abc".into(), &"x".into())
        );
    }
}
