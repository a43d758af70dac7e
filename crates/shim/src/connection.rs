//! The connections over which containerd asks: one for each container, and some that bring no container.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_shim_protos::ttrpc::r#async::transport::Listener;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};

/// How long after a connection could not be taken it is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long containerd may take to close its last connections.
const LAST: Duration = Duration::from_secs(1);

/// A connection, which is known to be open until it is dropped.
struct Connection {
    stream: UnixStream,
    _open: Option<Sender<()>>,
}

/// The connections that are open.
pub(crate) struct Connections {
    open: Sender<()>,
    closed: Receiver<()>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        let (open, closed) = mpsc::channel(1);
        Self { open, closed }
    }

    /// Those that come. One that cannot be taken, for want of descriptors, waits; the library would ask for it again and
    /// again.
    pub(crate) fn of(&self, listener: UnixListener) -> Listener {
        let from = (listener, self.open.downgrade());
        Listener::new(stream::unfold(from, |from| async {
            let connection = accepted(&from.0, &from.1).await;
            Some((io::Result::Ok(connection), from))
        }))
    }

    /// Waits until containerd has closed them all, for a while: it takes one that is closed on it for a supervisor that
    /// has died, and tells of the container's end once more.
    pub(crate) async fn closed(self) {
        let Self { open, mut closed } = self;
        drop(open);
        let _ = tokio::time::timeout(LAST, closed.recv()).await;
    }
}

async fn accepted(listener: &UnixListener, open: &WeakSender<()>) -> Connection {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _open = open.upgrade();
                return Connection { stream, _open };
            }
            Err(error) => tracing::warn!(%error, "a connection waits"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_one_that_is_closed_is_waited_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("binds");
        let connections = Connections::new();
        let open = connections.open.downgrade();
        let _outside = UnixStream::connect(&path).await.expect("connects");
        let inside = accepted(&listener, &open).await;
        let mut closed = std::pin::pin!(connections.closed());
        let waits = std::future::poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx).is_pending()));
        assert!(waits.await, "one is open");
        drop(inside);
        closed.await;
    }
}
