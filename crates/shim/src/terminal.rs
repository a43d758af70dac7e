//! Terminals. The process has the pseudo terminal itself as its streams; the supervisor copies between its other end and
//! what containerd asked for.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jail::Master;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Outcome, of_jail};
use crate::stdio::{Ends, Held};

/// Bytes per read, either way; nothing more is buffered.
const CHUNK: usize = 32 << 10;
/// How long an exit is held back for a reader of the last output; a slower one still gets all of it.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Where what is typed comes from, and where the output goes: a terminal without its middle.
pub(crate) struct Line {
    pub(crate) input: Option<pipe::Receiver>,
    pub(crate) output: Sink,
    pub(crate) held: Held,
}

/// Where the output of a terminal goes.
pub(crate) enum Sink {
    Pipe(pipe::Sender),
    File(File),
}

impl Line {
    /// Puts a new pseudo terminal between, whose one end is the process's streams.
    pub(crate) fn own(self) -> Outcome<(Ends, Held)> {
        let (master, slave) = Master::open().map_err(|error| of_jail(&error))?;
        let copy = || slave.try_clone().map_err(Failure::internal);
        let ends = Ends {
            stdin: copy()?,
            stdout: copy()?,
            stderr: slave,
        };
        Ok((ends, self.attach(master)))
    }

    /// Puts a terminal between that somebody else made.
    pub(crate) fn attach(self, master: Master) -> Held {
        let Self {
            input,
            output,
            mut held,
        } = self;
        held.terminal = Some(Terminal::start(master, input, output));
        held
    }
}

/// A terminal at work.
pub(crate) struct Terminal {
    /// Weak: it hangs up when the copying is over.
    master: Weak<Master>,
    /// Whether nothing more is to be waited for.
    over: Arc<watch::Sender<bool>>,
    copying: JoinHandle<()>,
}

impl Terminal {
    fn start(master: Master, input: Option<pipe::Receiver>, output: Sink) -> Self {
        let master = Arc::new(master);
        let over = Arc::new(watch::Sender::new(false));
        Self {
            master: Arc::downgrade(&master),
            copying: tokio::spawn(copy(master, input, output, over.clone())),
            over,
        }
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Outcome<()> {
        match self.master.upgrade() {
            Some(master) => master
                .resize(columns, rows)
                .map_err(|error| of_jail(&error)),
            // It has hung up: there is nobody to see a size.
            None => Ok(()),
        }
    }

    /// The process has ended: what it wrote is still delivered.
    pub(crate) async fn finish(self) {
        self.over.send_replace(true);
        let _ = tokio::time::timeout(LAST_OUTPUT, self.copying).await;
    }
}

async fn copy(
    master: Arc<Master>,
    input: Option<pipe::Receiver>,
    mut output: Sink,
    over: Arc<watch::Sender<bool>>,
) {
    let mut ended = over.subscribe();
    let typing = input.map(|input| tokio::spawn(copy_input(input, master.clone(), over)));
    let mut bytes = vec![0; CHUNK];
    loop {
        // Reading alone can be given up without loss; what was read is always written.
        let read = tokio::select! {
            biased;
            read = master.read(&mut bytes) => read,
            _ = ended.wait_for(|over| *over) => match master.read_now(&mut bytes) {
                Ok(Some(count)) => Ok(count),
                Ok(None) => Ok(0),
                Err(error) => Err(error),
            },
        };
        match read {
            Ok(count @ 1..) => output.write_all(&bytes[..count]).await,
            Ok(0) | Err(_) => break,
        }
    }
    if let Some(typing) = typing {
        // It has the terminal open, and would keep it from hanging up.
        typing.abort();
        let _ = typing.await;
    }
}

async fn copy_input(
    mut input: pipe::Receiver,
    master: Arc<Master>,
    over: Arc<watch::Sender<bool>>,
) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(count @ 1..) = input.read(&mut bytes).await {
        if master.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // As with runc's shim: at the end of its input a terminal hangs up.
    over.send_replace(true);
}

impl Sink {
    /// A reader that is gone is no reason to stop the process.
    async fn write_all(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::File(file) => file.write_all(bytes),
        };
    }
}

/// A socket on which a runtime hands over the terminal that it made inside the container.
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in the directory.
    pub(crate) fn listen(directory: &Path) -> Outcome<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("console-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let failed = |error: std::io::Error| {
            let error = anyhow::Error::new(error);
            Failure::internal(
                error.context(format!("listen for a terminal in {}", directory.display())),
            )
        };
        // By the descriptor: the path may be longer than the name of a socket can be.
        let open = File::open(directory).map_err(failed)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&open.as_fd());
        let listener =
            UnixListener::bind(format!("/proc/self/fd/{number}/{name}")).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            path: directory.join(name),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal that was handed over.
    pub(crate) fn accept(&self) -> Outcome<Master> {
        let (stream, _) = self.listener.accept().map_err(|error| {
            Failure::internal(
                anyhow::Error::new(error).context("take the container's terminal over"),
            )
        })?;
        Master::receive(OwnedFd::from(stream)).map_err(|error| of_jail(&error))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // The directory goes with the container anyway.
        let _ = std::fs::remove_file(&self.path);
    }
}
