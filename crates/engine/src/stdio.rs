//! The guest's standard streams are the process's own descriptors 0, 1 and 2.
//!
//! Writing blocks, in the calling thread, until the other side took the bytes: nothing is
//! buffered here, so nothing is lost when the guest exits, and a guest that writes faster than
//! its logs are read waits, as a native one does. Reading never blocks the thread: a guest may
//! wait for its input and for something else at once.

mod entry;
mod lines;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use plan::LogFormat;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

pub(crate) use entry::Entry;
pub(crate) use lines::{Labelled, Lines};

/// Bytes per read and per write that the host buffers: a pipe's usual capacity.
const CHUNK: usize = 64 * 1024;

/// How this process writes lines; decided once, when its guest begins.
static JSON: AtomicBool = AtomicBool::new(false);

/// Says how lines are written from here on, which is not always as asked for: who looks at a terminal wants to read.
pub(crate) fn begin(asked: LogFormat) -> LogFormat {
    let json = asked == LogFormat::Json && !Output::Stdout.is_terminal();
    JSON.store(json, Ordering::Relaxed);
    if json {
        LogFormat::Json
    } else {
        LogFormat::Text
    }
}

/// Lines of ours, on the guest's standard error, as its lines are written.
pub(crate) fn own(text: &str) -> Vec<u8> {
    if JSON.load(Ordering::Relaxed) {
        entry::Object::new(Output::Stderr, text.trim_end().as_bytes()).line()
    } else {
        text.as_bytes().to_vec()
    }
}

/// The process's standard input, as WASI's.
#[derive(Default)]
pub(crate) struct Stdin {
    /// While a reader waits: its own registration with the runtime. Made when needed, because
    /// most guests never read, and files and `/dev/null` cannot be registered (they are always
    /// ready, so nobody waits for them).
    waiting: Option<AsyncFd<OwnedFd>>,
}

impl Stdin {
    /// Reads what is there; `None` if that would block, an empty answer at the end.
    fn read_now(size: usize) -> io::Result<Option<Bytes>> {
        let stdin = io::stdin();
        if !is_ready(stdin.as_fd(), PollFlags::POLLIN)? {
            return Ok(None);
        }
        let mut buffer = BytesMut::zeroed(size.clamp(1, CHUNK));
        loop {
            match nix::unistd::read(&stdin, &mut buffer) {
                Ok(count) => {
                    buffer.truncate(count);
                    return Ok(Some(buffer.freeze()));
                }
                Err(Errno::EINTR) => {}
                // Somebody else read it, or the descriptor is non-blocking.
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stdin = io::stdin();
        if is_ready(stdin.as_fd(), PollFlags::POLLIN)? {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        if self.waiting.is_none() {
            self.waiting = Some(register(stdin.as_fd().try_clone_to_owned()?)?);
        }
        let waiting = self.waiting.as_ref().expect("made above");
        let mut guard = ready!(waiting.poll_read_ready(cx))?;
        // A registration tells of edges: asked anew each time, it cannot be stale.
        guard.retain_ready();
        drop(guard);
        self.waiting = None;
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        io::IsTerminal::is_terminal(&io::stdin())
    }
}

impl StdinStream for Stdin {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Self::default())
    }

    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Self::default())
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        // An error shows at the read that follows.
        let _ = std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match Self::read_now(size).map_err(broken)? {
            None => Ok(Bytes::new()),
            Some(bytes) if bytes.is_empty() => Err(StreamError::Closed),
            Some(bytes) => Ok(bytes),
        }
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(bytes) = Self::read_now(buffer.remaining())? {
                buffer.put_slice(&bytes);
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_ready(cx))?;
        }
    }
}

/// The process's standard output or standard error, as WASI's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn write_all(self, mut bytes: &[u8]) -> io::Result<()> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let target = match self {
            Self::Stdout => stdout.as_fd(),
            Self::Stderr => stderr.as_fd(),
        };
        while !bytes.is_empty() {
            match nix::unistd::write(target, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                // A log reader may have made the shared description non-blocking.
                Err(Errno::EAGAIN) => wait(target, PollFlags::POLLOUT)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self {
            Self::Stdout => io::IsTerminal::is_terminal(&io::stdout()),
            Self::Stderr => io::IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(*self)
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(*self)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_all(&bytes).map_err(broken)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[expect(
    deprecated,
    reason = "its unsafe successor guards against types whose descriptor changes; an OwnedFd keeps its own"
)]
fn register(own: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(own, Interest::READABLE)
}

fn is_ready(descriptor: BorrowedFd<'_>, events: PollFlags) -> io::Result<bool> {
    Ok(poll(descriptor, events, PollTimeout::ZERO)? > 0)
}

fn wait(descriptor: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    poll(descriptor, events, PollTimeout::NONE).map(drop)
}

fn poll(descriptor: BorrowedFd<'_>, events: PollFlags, timeout: PollTimeout) -> io::Result<i32> {
    loop {
        match nix::poll::poll(&mut [PollFd::new(descriptor, events)], timeout) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

fn broken(error: io::Error) -> StreamError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        StreamError::Closed
    } else {
        StreamError::LastOperationFailed(error.into())
    }
}
