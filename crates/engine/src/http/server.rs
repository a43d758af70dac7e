//! The server in front of a guest: HTTP/1.1 and HTTP/2 without TLS (h2c, with prior knowledge)
//! on one port, and an orderly end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, header};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use plan::{ExitCode, Serving};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use wasmtime::Engine;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::command::say;
use crate::config::Crowd;
use crate::ending::{Ending, line};
use crate::grants::Grants;
use crate::http::instances::Instances;
use crate::http::patience::Patience;
use crate::http::request::Server;
use crate::http::reuse::Reuse;
use crate::http::ticker::Ticker;
use crate::http::worker::Workers;
use crate::limits::Budget;
use crate::state::ComponentState;

/// Threads that run guests. A pod that waits for requests should cost little on a node with
/// many cores, and who needs more throughput than so many cores give runs more pods.
const MAX_THREADS: usize = 8;
/// Connections that the kernel holds until they are accepted; it takes its own limit if less.
const BACKLOG: u32 = 1024;
/// How long a client may take for the header of a request.
const HEADER: Duration = Duration::from_secs(30);
/// Bytes of a connection that are held: more than every header that a client has a reason to send.
const BUFFER: usize = 128 << 10;
/// Pause after an error of `accept` that concerns the process (too many open files): the next
/// attempt would fail the same way.
const BREATH: Duration = Duration::from_millis(50);
/// How long connections without a request stay open when the server ends. A client that keeps one
/// for its next request is told to close by the answer to it; closing without a word would lose a
/// request that is on its way.
const LINGER: Duration = Duration::from_millis(500);
/// What a client sends first that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Exit code of a process that a signal ended, less the signal's number.
const SIGNALLED: i32 = 128;

/// How many threads a server is to have: as many as its cgroup and affinity let run at once.
/// Asks `/proc`, so it has to be asked before the jail.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_THREADS)
}

/// A program that serves.
pub(crate) struct Served {
    pub(crate) pre: ProxyPre<ComponentState>,
    pub(crate) address: SocketAddr,
    /// Of [`threads`].
    pub(crate) threads: usize,
    pub(crate) crowd: Crowd,
    /// Why there is no pool of what instances need, if there was to be one.
    pub(crate) unpooled: Option<String>,
    pub(crate) serving: Serving,
}

impl Served {
    /// Its line of WASI.
    pub(crate) const fn line(&self) -> &'static str {
        match self.pre {
            ProxyPre::P2(_) => "0.2",
            ProxyPre::P3(_) => "0.3",
        }
    }
}

/// Serves until a signal comes, unless one came before (`asked_to_end`).
pub(crate) fn serve(
    served: &Served,
    grants: Grants,
    budget: Arc<Budget>,
    asked_to_end: fn() -> bool,
) -> Ending {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(served.threads)
        .enable_all()
        .build();
    let result = runtime.and_then(|runtime| {
        let dumps = grants.dumps.clone();
        let result = runtime.block_on(run(served, grants, budget, asked_to_end));
        if let Some(dumps) = dumps {
            runtime.block_on(dumps.finish());
        }
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| {
        let account = line(&format!("cannot listen on {}: {error}", served.address));
        Ending::told(ExitCode::NotRunnable, account)
    })
}

async fn run(
    served: &Served,
    grants: Grants,
    budget: Arc<Budget>,
    asked_to_end: fn() -> bool,
) -> io::Result<Ending> {
    let mut signals = Signals::new()?;
    if asked_to_end() {
        return Ok(Ending::own(0));
    }
    // A directory that cannot be opened fails the container now and not every request later.
    if let Err(error) = grants.directories() {
        let account = line(&error.to_string());
        return Ok(Ending::told(ExitCode::NotRunnable, account));
    }
    if let Some(reason) = &served.unpooled {
        say(&line(&format!(
            "every request makes its memory anew, which is slow, because there is no pool of it: {reason}"
        )));
    }
    let listener = listen(served.address)?;
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(served.crowd.instances as usize));
    let reuse = Arc::new(Reuse::new(matches!(served.pre, ProxyPre::P2(_))));
    let counts = Arc::clone(grants.counts());
    let tracer = grants.tracer.clone();
    let workers = Workers {
        pre: again(&served.pre),
        grants,
        budget: Arc::clone(&budget),
        serving: served.serving.clone(),
        reuse: Arc::clone(&reuse),
        places: Arc::clone(&places),
        ticker: Ticker::new(engine(&served.pre)),
        stopping: stopping.clone(),
    };
    let server = Arc::new(Server::new(
        Instances::new(workers),
        budget,
        served.serving.clone(),
        tracer,
        reuse,
        stopping,
        counts,
    ));
    let connections = GracefulShutdown::new();
    // Every connection holds a sender: the receiver knows when the last one has ended.
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    let greet = |stream: TcpStream, open: mpsc::Sender<Infallible>| {
        let server = Arc::clone(&server);
        let watcher = connections.watcher();
        tokio::spawn(async move {
            connection(server, stream, watcher).await;
            drop(open);
        });
    };

    loop {
        tokio::select! {
            biased;
            _ = signals.next() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => greet(stream, open.clone()),
                Err(error) if concerns_the_process(&error) => tokio::time::sleep(BREATH).await,
                // The client was gone before it was accepted.
                Err(_) => {}
            },
        }
    }

    // Clients that the kernel already told they are connected would lose their request if the
    // socket were closed now.
    while let Some(stream) = accept_now(&listener).await {
        greet(stream, open.clone());
    }
    drop((listener, open));
    let _ = stop.send(true);
    let drained = async {
        // A client may be sending its next request on a connection that looks idle: it gets its
        // answer, and the word to close.
        let _ = timeout(LINGER, ended.recv()).await;
        connections.shutdown().await;
        // Guests may work on after their answer.
        let _ = places.acquire_many(served.crowd.instances).await;
    };
    tokio::select! {
        () = drained => Ok(Ending::own(0)),
        signal = signals.next() => Ok(Ending::own(SIGNALLED + signal)),
    }
}

fn engine(pre: &ProxyPre<ComponentState>) -> Engine {
    match pre {
        ProxyPre::P2(pre) => pre.engine().clone(),
        ProxyPre::P3(pre) => pre.engine().clone(),
    }
}

/// The same once more; both kinds share what is behind them.
fn again(pre: &ProxyPre<ComponentState>) -> ProxyPre<ComponentState> {
    match pre {
        ProxyPre::P2(pre) => ProxyPre::P2(pre.clone()),
        ProxyPre::P3(pre) => ProxyPre::P3(pre.clone()),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restarted container takes its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn concerns_the_process(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// A connection that waits in the kernel, if there is one.
async fn accept_now(listener: &TcpListener) -> Option<TcpStream> {
    poll_fn(|cx| {
        Poll::Ready(match listener.poll_accept(cx) {
            Poll::Ready(Ok((stream, _))) => Some(stream),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        })
    })
    .await
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one and gives its number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, watcher: Watcher) {
    // Answers are written when they are complete; waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let speaks_http2 = tokio::select! {
        biased;
        version = speaks_http2(&stream) => version.unwrap_or(false),
        // It never asked for anything.
        () = lingered(&server) => return,
    };
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move {
            let mut response = server.answer(request).await;
            // HTTP/2 says it for the whole connection, without losing a request (GOAWAY).
            if !speaks_http2 && server.is_stopping() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    // Errors of a connection are the client's: there is nobody to tell.
    if speaks_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let _ = watcher.watch(builder.serve_connection(io, service)).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(Patience::default())
            .header_read_timeout(HEADER)
            .max_buf_size(BUFFER)
            // Most answers are small: to copy their parts into one buffer costs less than to hand over a list of them.
            .writev(false);
        // A client that closes its half is taken for gone, as nginx and Go do: nothing else tells that it is, and what
        // runs for it should end.
        let _ = watcher.watch(builder.serve_connection(io, service)).await;
    }
}

/// The server ends, and whoever wanted something could have said it.
async fn lingered(server: &Server) {
    server.stopping().await;
    tokio::time::sleep(LINGER).await;
}

/// Looks at the first bytes without taking them. hyper-util can tell the two apart as well, but
/// drops a connection that is still undecided when the server ends, with the request in it.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut seen = 0;
    let patience = tokio::time::Instant::now() + HEADER;
    loop {
        let count = tokio::time::timeout_at(patience, stream.peek(&mut start)).await??;
        if count == 0 || start[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        if count == seen {
            // Part of the preface, and the rest on its way: the socket stays readable, so there
            // is no event to wait for.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if tokio::time::Instant::now() >= patience {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        seen = count;
    }
}
