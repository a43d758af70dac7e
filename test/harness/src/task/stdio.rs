use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::stat::Mode;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// One of a task's standard streams.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Stdio {
    /// Nothing: an empty path in the request.
    #[default]
    Null,
    /// A FIFO whose other end the test holds.
    Fifo,
    /// A logging URI, as in `file:///path` or `binary:///path?arg=value`.
    Uri(String),
}

/// The streams of one task. Dropping it ends the threads that read.
#[derive(Debug)]
pub(super) struct Streams {
    dir: PathBuf,
    stdin: (String, Option<pipe::Sender>),
    stdout: (String, Option<Reader>),
    stderr: (String, Option<Reader>),
}

impl Streams {
    pub(super) fn make(dir: &Path, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let reading = |kind: Stdio, name: &str| {
            Ok::<_, anyhow::Error>(match kind {
                Stdio::Null => (String::new(), None),
                Stdio::Uri(uri) => (uri, None),
                Stdio::Fifo => {
                    let path = fifo(dir, name)?;
                    (path.to_string_lossy().into_owned(), Some(Reader::new(path)))
                }
            })
        };
        let stdin = match stdin {
            Stdio::Null => String::new(),
            Stdio::Uri(uri) => uri,
            Stdio::Fifo => fifo(dir, "stdin")?.to_string_lossy().into_owned(),
        };
        Ok(Self {
            stdin: (stdin, None),
            stdout: reading(stdout, "stdout")?,
            stderr: reading(stderr, "stderr")?,
            dir: dir.to_path_buf(),
        })
    }

    pub(super) fn stdin_uri(&self) -> String {
        self.stdin.0.clone()
    }

    pub(super) fn stdout_uri(&self) -> String {
        self.stdout.0.clone()
    }

    pub(super) fn stderr_uri(&self) -> String {
        self.stderr.0.clone()
    }

    pub(super) async fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        let (path, sender) = &mut self.stdin;
        let sender = match sender {
            Some(sender) => sender,
            None if path.starts_with('/') => {
                // The shim opens its end by its own time; opening ours without blocking fails until then.
                let open = async || Ok(pipe::OpenOptions::new().open_sender(&*path).ok());
                let opened =
                    crate::until("the shim to open stdin", Duration::from_secs(10), open).await?;
                sender.insert(opened)
            }
            None => bail!("write to stdin: it is no FIFO, or was closed"),
        };
        sender
            .write_all(bytes)
            .await
            .context("write to the task's stdin")
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin = (String::new(), None);
    }

    pub(super) async fn stdout_contains(&self, text: &str, deadline: Duration) -> Result<()> {
        let reader = self.stdout.1.as_ref().context("stdout is no FIFO")?;
        let mut progress = reader.progress.clone();
        let contains = || {
            reader
                .buffer()
                .bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        let wait = async {
            // Ends with an error when the reader has seen the end of the stream.
            while !contains() && progress.changed().await.is_ok() {}
        };
        drop(tokio::time::timeout(deadline, wait).await);
        if !contains() {
            bail!(
                "stdout does not contain {text:?}: {:?}",
                String::from_utf8_lossy(&reader.buffer().bytes)
            );
        }
        Ok(())
    }

    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.stdout
            .1
            .as_ref()
            .and_then(|reader| reader.buffer().first)
    }

    /// Waits for the ends of both streams and returns what came.
    pub(super) async fn finish(&mut self) -> (Vec<u8>, Vec<u8>) {
        let stdout = match &self.stdout.1 {
            Some(reader) => reader.finish().await,
            None => Vec::new(),
        };
        let stderr = match &self.stderr.1 {
            Some(reader) => reader.finish().await,
            None => Vec::new(),
        };
        (stdout, stderr)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for reader in [&self.stdout.1, &self.stderr.1].into_iter().flatten() {
            reader.release();
        }
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn fifo(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
        .with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

/// A thread that reads a FIFO to its end. A thread, since the opening blocks until a writer comes, which is the only
/// way to tell "nobody yet" from "nobody any more"; and since it notes the time of the first byte without delay.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    buffer: Arc<Mutex<Buffer>>,
    /// The length so far; closed at the end.
    progress: watch::Receiver<usize>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    first: Option<Instant>,
}

impl Reader {
    fn new(path: PathBuf) -> Self {
        let buffer = Arc::<Mutex<Buffer>>::default();
        let (sender, progress) = watch::channel(0);
        let (shared, from) = (Arc::clone(&buffer), path.clone());
        std::thread::spawn(move || {
            let Ok(mut file) = File::open(from) else {
                return;
            };
            let mut part = vec![0; 64 << 10];
            while let Ok(count @ 1..) = file.read(&mut part) {
                let now = Instant::now();
                let mut buffer = lock(&shared);
                buffer.first.get_or_insert(now);
                buffer.bytes.extend_from_slice(&part[..count]);
                sender.send_replace(buffer.bytes.len());
            }
        });
        Self {
            path,
            buffer,
            progress,
        }
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        lock(&self.buffer)
    }

    async fn finish(&self) -> Vec<u8> {
        // In case that no writer has ever come.
        self.release();
        let mut progress = self.progress.clone();
        while progress.changed().await.is_ok() {}
        std::mem::take(&mut self.buffer().bytes)
    }

    /// Lets the thread's opening return, if it still waits for a writer: by coming and going as one.
    fn release(&self) {
        drop(
            OpenOptions::new()
                .write(true)
                .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
                .open(&self.path),
        );
    }
}

fn lock(buffer: &Mutex<Buffer>) -> MutexGuard<'_, Buffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}
