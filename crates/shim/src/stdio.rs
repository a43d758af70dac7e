//! A container's standard streams, by the URIs of a Create request: FIFOs that containerd
//! reads, files (`file://`), or a logging program (`binary://`), as runc's shim has them.
//!
//! The guest writes into the FIFO itself: nothing is copied, and no process of ours has to be
//! awake for it. The supervisor keeps an end of each open until the container ends, so that a
//! restart of containerd is no broken pipe and no end of input.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::failure::{Failure, Kind, Outcome};
use crate::terminal::{Line, Sink, Terminal};

/// The streams that a request asks for: URIs, empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether the process gets a terminal, whose ends stdin and stdout are.
    pub(crate) terminal: bool,
}

/// What the container's process gets as descriptors 0, 1 and 2.
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What was opened.
pub(crate) enum Opened {
    /// The process reads and writes itself.
    Direct(Ends, Held),
    /// A terminal comes between.
    Terminal(Line),
}

impl Opened {
    /// The ends for a process that is spawned with them, with a terminal of the host where one is asked for.
    pub(crate) fn ends(self) -> Outcome<(Ends, Held)> {
        match self {
            Self::Direct(ends, held) => Ok((ends, held)),
            Self::Terminal(line) => line.own(),
        }
    }
}

/// What the supervisor keeps while the process lives. Dropping it lets its readers see the end of the streams.
#[derive(Default)]
pub(crate) struct Held {
    /// A writing end of the input; dropped by CloseIO, so that the guest sees its end.
    stdin: Option<File>,
    outputs: Vec<File>,
    logger: Option<Logger>,
    pub(crate) terminal: Option<Terminal>,
}

/// A logging program. When it is dropped it gets time to finish.
struct Logger(Option<std::process::Child>);

/// As long as containerd gives a logging program to end after its input did.
const LOGGER_GRACE: Duration = Duration::from_secs(12);
/// How long a reader is waited for; containerd opens its ends before it asks for the process.
const READER: Duration = Duration::from_secs(5);
/// And to say that it is ready.
const LOGGER_START: Duration = Duration::from_secs(10);

/// Opens the streams.
pub(crate) async fn open(streams: &Streams, id: &str, namespace: &str) -> Outcome<Opened> {
    let mut held = Held::default();
    if streams.terminal {
        let input = typed(&streams.stdin, &mut held)?;
        let output = shown(&streams.stdout, id, namespace, &mut held).await?;
        return Ok(Opened::Terminal(Line {
            input,
            output,
            held,
        }));
    }
    let stdin = match target(&streams.stdin)? {
        Target::Null => null()?,
        Target::Fifo(path) => {
            let (both, end) = fifo(&path, OpenOptions::new().read(true))?;
            held.stdin = Some(both);
            end.into()
        }
        Target::File(_) | Target::Program(_) => return Err(no_input(&streams.stdin)),
    };
    // One program reads both outputs; the URI of stdout names it (containerd `NewBinaryIO`).
    let (stdout, stderr) = match target(&streams.stdout)? {
        Target::Program(program) => logger(&program, id, namespace, &mut held).await?,
        _ => (
            output(&streams.stdout, &mut held).await?,
            output(&streams.stderr, &mut held).await?,
        ),
    };
    let ends = Ends {
        stdin,
        stdout,
        stderr,
    };
    Ok(Opened::Direct(ends, held))
}

/// What is typed into a terminal.
fn typed(uri: &str, held: &mut Held) -> Outcome<Option<pipe::Receiver>> {
    match target(uri)? {
        Target::Null => Ok(None),
        Target::Fifo(path) => {
            held.stdin = Some(both_ends(&path).map_err(|error| cannot_open(&path, error))?);
            let input = pipe::OpenOptions::new().open_receiver(&path);
            input.map(Some).map_err(|error| cannot_open(&path, error))
        }
        Target::File(_) | Target::Program(_) => Err(no_input(uri)),
    }
}

/// Where a terminal shows its output.
async fn shown(uri: &str, id: &str, namespace: &str, held: &mut Held) -> Outcome<Sink> {
    match target(uri)? {
        Target::Fifo(path) => {
            let _writer = reader_of(&path)
                .await
                .map_err(|error| cannot_open(&path, error))?;
            held.outputs
                .push(both_ends(&path).map_err(|error| cannot_open(&path, error))?);
            let output = pipe::OpenOptions::new().open_sender(&path);
            output
                .map(Sink::Pipe)
                .map_err(|error| cannot_open(&path, error))
        }
        Target::Program(program) => {
            // A terminal has no second output.
            let (output, _) = logger(&program, id, namespace, held).await?;
            let output = pipe::Sender::from_owned_fd(output);
            output.map(Sink::Pipe).map_err(Failure::internal)
        }
        Target::Null | Target::File(_) => {
            output(uri, held).await.map(|file| Sink::File(file.into()))
        }
    }
}

fn no_input(uri: &str) -> Failure {
    Failure::new(Kind::Invalid, format!("stdin cannot come from {uri}"))
}

impl Held {
    /// CloseIO: the guest sees the end of its input once containerd has closed its end too.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Gives the terminal its size, if there is one.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Outcome<()> {
        match &self.terminal {
            Some(terminal) => terminal.resize(columns, rows),
            None => Ok(()),
        }
    }

    /// The process has ended: its readers see all that it wrote, and the end of the streams.
    pub(crate) async fn close(mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.finish().await;
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if let Some(mut logger) = self.0.take() {
            tokio::spawn(async move {
                let deadline = tokio::time::Instant::now() + LOGGER_GRACE;
                while matches!(logger.try_wait(), Ok(None))
                    && tokio::time::Instant::now() < deadline
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // Both fail where it has ended, which is what is wanted.
                let _ = logger.kill();
                let _ = logger.wait();
            });
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Null,
    Fifo(PathBuf),
    File(PathBuf),
    Program(Program),
}

#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    args: Vec<String>,
}

fn target(uri: &str) -> Outcome<Target> {
    if uri.is_empty() {
        return Ok(Target::Null);
    }
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Ok(Target::Fifo(uri.into()));
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = PathBuf::from(unescape(path));
    if !path.is_absolute() {
        return Err(Failure::new(
            Kind::Invalid,
            format!("the stream `{uri}` has no absolute path"),
        ));
    }
    match scheme {
        "fifo" => Ok(Target::Fifo(path)),
        "file" => Ok(Target::File(path)),
        "binary" => {
            let args = query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .flat_map(|pair| match pair.split_once('=') {
                    Some((name, value)) => vec![unescape(name), unescape(value)],
                    None => vec![unescape(pair)],
                })
                .filter(|arg| !arg.is_empty())
                .collect();
            Ok(Target::Program(Program { path, args }))
        }
        other => Err(Failure::new(
            Kind::Unimplemented,
            format!("streams of kind `{other}://` are not implemented (fifo, file and binary are)"),
        )),
    }
}

/// Percent-decoding (RFC 3986, section 2.1), with `+` as a space as query strings have it.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn null() -> Outcome<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    file.map(OwnedFd::from)
        .map_err(|error| Failure::internal(anyhow::Error::new(error).context("open /dev/null")))
}

async fn output(uri: &str, held: &mut Held) -> Outcome<OwnedFd> {
    match target(uri)? {
        Target::Null => null(),
        Target::Fifo(path) => {
            let _writer = reader_of(&path)
                .await
                .map_err(|error| cannot_open(&path, error))?;
            let (both, end) = fifo(&path, OpenOptions::new().write(true))?;
            held.outputs.push(both);
            Ok(end.into())
        }
        Target::File(path) => {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).map_err(|error| cannot_open(dir, error))?;
            }
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.map(OwnedFd::from)
                .map_err(|error| cannot_open(&path, error))
        }
        Target::Program(_) => Err(Failure::new(
            Kind::Invalid,
            format!("stderr goes to `{uri}` but stdout does not: a logging program takes both"),
        )),
    }
}

/// Waits until somebody reads: what a program writes that ends before would be lost with its ends, and who comes later
/// would wait for ever. After a while nobody is expected any more.
///
/// The end that is returned is kept until another one is open: the reader would see the end of all output with it.
async fn reader_of(path: &Path) -> std::io::Result<Option<pipe::Sender>> {
    let end = tokio::time::Instant::now() + READER;
    let mut moment = Duration::from_micros(100);
    loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Ok(writer) => return Ok(Some(writer)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => {
                if tokio::time::Instant::now() > end {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
        // Nobody tells when a FIFO is opened.
        tokio::time::sleep(moment).await;
        moment = (moment * 2).min(Duration::from_millis(10));
    }
}

/// Both ends in one, which never waits, and then the end that is asked for.
fn fifo(path: &Path, end: &OpenOptions) -> Outcome<(File, File)> {
    let open = || Ok((both_ends(path)?, end.open(path)?));
    open().map_err(|error| cannot_open(path, error))
}

fn both_ends(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(std::io::Error::other("it is not a FIFO"));
    }
    OpenOptions::new().read(true).write(true).open(path)
}

fn cannot_open(path: &Path, error: std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Precondition,
    };
    Failure::new(
        kind,
        format!("cannot open the stream {}: {error}", path.display()),
    )
}

/// Starts a logging program: descriptors 3 and 4 are the outputs, 5 is closed when it is ready
/// (containerd `core/runtime/v2/logging`).
async fn logger(
    program: &Program,
    id: &str,
    namespace: &str,
    held: &mut Held,
) -> Outcome<(OwnedFd, OwnedFd)> {
    let failed = |what: &str, error: std::io::Error| {
        Failure::new(
            Kind::Precondition,
            format!(
                "the logging program {}: {what}: {error}",
                program.path.display()
            ),
        )
    };
    let pipe = || std::io::pipe().map_err(|error| failed("make a pipe", error));
    let (out_reader, out_writer) = pipe()?;
    let (err_reader, err_writer) = pipe()?;
    let (ready_reader, ready_writer) = pipe()?;
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .fd_mappings(vec![
            FdMapping {
                parent_fd: out_reader.into(),
                child_fd: 3,
            },
            FdMapping {
                parent_fd: err_reader.into(),
                child_fd: 4,
            },
            FdMapping {
                parent_fd: ready_writer.into(),
                child_fd: 5,
            },
        ])
        .map_err(|error| Failure::internal(anyhow::anyhow!("{error}")))?;
    jail::with_former_limit(&mut command);
    let spawned = command
        .spawn()
        .map_err(|error| failed("cannot be started", error))?;
    held.logger = Some(Logger(Some(spawned)));
    // The command holds the ends that the program inherited; they must not stay open here.
    drop(command);
    let mut ready = pipe::Receiver::from_owned_fd(ready_reader.into())
        .map_err(|error| failed("wait for it", error))?;
    match tokio::time::timeout(LOGGER_START, ready.read(&mut [0])).await {
        Ok(Ok(_)) => Ok((out_writer.into(), err_writer.into())),
        Ok(Err(error)) => Err(failed("wait for it", error)),
        Err(_) => Err(Failure::new(
            Kind::Exhausted,
            format!(
                "the logging program {} did not close descriptor 5 within {LOGGER_START:?}",
                program.path.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    async fn direct(streams: &Streams) -> (Ends, Held) {
        direct_as(streams, "c", "ns").await
    }

    async fn direct_as(streams: &Streams, id: &str, namespace: &str) -> (Ends, Held) {
        let opened = open(streams, id, namespace).await.expect("opens");
        opened.ends().expect("has ends")
    }

    #[test]
    fn uris_are_understood() {
        assert_eq!(target("").expect("none"), Target::Null);
        assert_eq!(
            target("/run/f").expect("path"),
            Target::Fifo("/run/f".into())
        );
        assert_eq!(
            target("file:///var/a%20b").expect("file"),
            Target::File("/var/a b".into())
        );
        assert_eq!(
            target("binary:///bin/log?id=x+y&flag").expect("program"),
            Target::Program(Program {
                path: "/bin/log".into(),
                args: vec!["id".into(), "x y".into(), "flag".into()]
            })
        );
        assert!(target("file://relative").is_err());
        assert!(
            target("npipe:///x")
                .expect_err("unknown")
                .to_string()
                .contains("npipe")
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_is_appended_to_and_its_directory_made() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("sub/out.log");
        let uris = Streams {
            stdout: format!("file://{}", path.display()),
            ..Default::default()
        };
        for _ in 0..2 {
            let (ends, _held) = direct(&uris).await;
            use std::io::Write;
            File::from(ends.stdout).write_all(b"x").expect("writes");
        }
        assert_eq!(std::fs::read_to_string(path).expect("file"), "xx");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_fifo_ends_when_the_container_did() {
        use std::os::unix::fs::OpenOptionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let uris = Streams {
            stdout: path.display().to_string(),
            ..Default::default()
        };
        // As containerd does: there before the container, without waiting for it.
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .expect("opens");
        let (ends, held) = direct(&uris).await;
        {
            use std::io::Write;
            File::from(ends.stdout)
                .write_all(b"all of it")
                .expect("writes");
        }
        let mut text = [0; 9];
        reader.read_exact(&mut text).expect("reads");
        assert_eq!(&text, b"all of it");
        // While the supervisor holds its end there is no more, but no end either.
        let waiting = reader.read(&mut text).expect_err("nothing more yet");
        assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock);
        held.close().await;
        assert_eq!(reader.read(&mut text).expect("reads"), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_is_written_before_somebody_reads() {
        use std::future::{Future, poll_fn};
        use std::task::Poll;
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let streams = Streams {
            stdout: path.display().to_string(),
            ..Default::default()
        };
        let mut opening = Box::pin(direct(&streams));
        let waits = poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "nobody reads yet");
        let reader = std::thread::spawn(move || std::fs::read(path));
        let (ends, held) = opening.await;
        // Reading goes on from the first moment.
        std::thread::yield_now();
        assert!(!reader.is_finished(), "it saw an end");
        {
            use std::io::Write;
            File::from(ends.stdout).write_all(b"all").expect("writes");
        }
        held.close().await;
        let text = reader.join().expect("joins").expect("reads");
        assert_eq!(text, b"all");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_logging_program_gets_both_outputs_and_who_it_is_for() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let script = dir.path().join("logger");
        let done = dir.path().join("done");
        nix::unistd::mkfifo(&done, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        std::fs::write(&script, "#!/bin/sh\nexec 5>&-\n{ echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $2\"; cat <&3; cat <&4; } > \"$2\"\n").expect("script");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("mode");
        let uris = Streams {
            stdout: format!("binary://{}?to={}", script.display(), done.display()),
            ..Default::default()
        };
        let (ends, held) = direct_as(&uris, "c1", "ns1").await;
        {
            use std::io::Write;
            File::from(ends.stdout).write_all(b"out\n").expect("writes");
            File::from(ends.stderr).write_all(b"err\n").expect("writes");
        }
        held.close().await;
        let text =
            tokio::task::spawn_blocking(move || std::fs::read_to_string(done).expect("reads"))
                .await
                .expect("joins");
        assert!(
            text.starts_with("c1 ns1 ") && text.ends_with("out\nerr\n"),
            "{text}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_missing_fifo_is_not_found() {
        let uris = Streams {
            stdout: "/does/not/exist".into(),
            ..Default::default()
        };
        let error = open(&uris, "c", "ns").await.err().expect("missing");
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }
}
