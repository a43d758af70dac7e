//! Native programs (an ELF file or a script as entry point, the sidecars of a pod), through
//! libcontainer with their whole spec.
//!
//! libcontainer forks and joins namespaces, which a process with an asynchronous runtime must
//! not; so each step is a short execution of this very program. The container's first process
//! becomes a child of the supervisor, which is a subreaper.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::failure::{Failure, Kind, Outcome};
use crate::stdio::{Held, Opened};
use crate::terminal::Console;

/// The first argument by which this program executes itself; not for people.
pub(crate) const COMMAND: &str = "native";

/// Where the child answers: its standard streams belong to the container.
const ANSWER: &str = "/proc/self/fd/3";

/// A container of libcontainer, by where its state is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Native {
    id: String,
    state: PathBuf,
}

#[derive(Serialize, Deserialize)]
enum Step {
    Create {
        bundle: PathBuf,
        systemd: bool,
        console: Option<PathBuf>,
    },
    Start,
    /// The OCI process is in the file: as an argument it would be readable for everybody.
    Exec {
        process: PathBuf,
        console: Option<PathBuf>,
    },
    Delete,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Done { pid: i32 },
    Failed { message: String },
}

impl Native {
    pub(crate) fn new(id: &str, state: PathBuf) -> Self {
        Self {
            id: id.to_owned(),
            state,
        }
    }

    /// Makes the container; its program waits. Returns the number of its first process and the supervisor's ends of its
    /// streams.
    pub(crate) async fn create(
        &self,
        bundle: &Path,
        systemd: bool,
        opened: Opened,
    ) -> Outcome<(i32, Held)> {
        let bundle = bundle.to_owned();
        self.with(opened, |console| Step::Create {
            bundle,
            systemd,
            console,
        })
        .await
    }

    /// Executes an OCI process in the container that runs. Returns its number and the supervisor's ends of its streams.
    pub(crate) async fn exec(&self, process: &Process, opened: Opened) -> Outcome<(i32, Held)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("process-{}.json", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.state.join(name);
        let json = serde_json::to_vec(process).map_err(Failure::internal)?;
        let failed = |error| {
            Failure::internal(anyhow::Error::new(error).context("keep the process to be executed"))
        };
        std::fs::write(&path, json).map_err(failed)?;
        let executed = self
            .with(opened, |console| Step::Exec {
                process: path.clone(),
                console,
            })
            .await;
        std::fs::remove_file(&path).map_err(failed)?;
        executed
    }

    /// A step that makes a process with these streams.
    async fn with(
        &self,
        opened: Opened,
        step: impl FnOnce(Option<PathBuf>) -> Step,
    ) -> Outcome<(i32, Held)> {
        match opened {
            Opened::Direct(ends, held) => {
                let ends = [ends.stdin.into(), ends.stdout.into(), ends.stderr.into()];
                Ok((self.execute(&step(None), ends).await?, held))
            }
            // The terminal is made inside the container, where its name means it.
            Opened::Terminal(line) => {
                let console = Console::listen(&self.state)?;
                let step = step(Some(console.path().to_owned()));
                let pid = self.execute(&step, quiet()).await?;
                Ok((pid, line.attach(console.accept()?)))
            }
        }
    }

    /// Lets its program run.
    pub(crate) async fn start(&self) -> Outcome<()> {
        self.execute(&Step::Start, quiet()).await.map(|_| ())
    }

    /// Removes it with everything that libcontainer made; also what a killed `create` left.
    pub(crate) async fn delete(&self) -> Outcome<()> {
        self.execute(&Step::Delete, quiet()).await.map(|_| ())
    }

    /// [`Native::delete`] for a process without a runtime.
    pub(crate) fn delete_now(&self) -> anyhow::Result<()> {
        jail::native::delete(&self.state, &self.id)?;
        Ok(())
    }

    async fn execute(&self, step: &Step, [stdin, stdout, stderr]: [Stdio; 3]) -> Outcome<i32> {
        let (reader, writer) = std::io::pipe().map_err(Failure::internal)?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .arg(COMMAND)
            .arg(serde_json::to_string(&(self, step)).map_err(Failure::internal)?)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .fd_mappings(vec![FdMapping {
                parent_fd: OwnedFd::from(writer),
                child_fd: 3,
            }])
            .map_err(|error| Failure::internal(anyhow::anyhow!("{error}")))?;
        jail::with_former_limit(&mut command);
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| {
                Failure::internal(anyhow::Error::new(error).context("execute this program again"))
            })?;
        let mut answer = Vec::new();
        let mut receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())
            .map_err(Failure::internal)?;
        // The container's first process does not inherit the answer's end (CLOEXEC there), so
        // this ends with the child.
        receiver
            .read_to_end(&mut answer)
            .await
            .map_err(Failure::internal)?;
        let status = child.wait().await.map_err(Failure::internal)?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Done { pid }) => Ok(pid),
            Ok(Answer::Failed { message }) => Err(Failure::new(Kind::Precondition, message)),
            Err(_) => Err(Failure::internal(anyhow::anyhow!(
                "libcontainer's process ended without an answer: {status}"
            ))),
        }
    }
}

fn quiet() -> [Stdio; 3] {
    [Stdio::null(), Stdio::null(), Stdio::null()]
}

/// The other side: carries out one step and answers.
pub(crate) fn command(args: &[String]) -> anyhow::Result<()> {
    let [order] = args else {
        bail!("`{COMMAND}` is for this program itself")
    };
    let (native, step): (Native, Step) =
        serde_json::from_str(order).context("understand the order")?;
    let mut answer_to = std::fs::OpenOptions::new()
        .write(true)
        .open(ANSWER)
        .context("open descriptor 3")?;
    let answer = match carry_out(&native, &step) {
        Ok(pid) => Answer::Done { pid },
        Err(error) => Answer::Failed {
            message: format!("{error:#}"),
        },
    };
    answer_to
        .write_all(&serde_json::to_vec(&answer)?)
        .context("answer")
}

fn carry_out(native: &Native, step: &Step) -> anyhow::Result<i32> {
    Ok(match step {
        Step::Create {
            bundle,
            systemd,
            console,
        } => jail::native::create(
            bundle,
            &native.state,
            &native.id,
            *systemd,
            console.as_deref(),
        )?,
        Step::Exec { process, console } => {
            jail::native::exec(&native.state, &native.id, process, console.as_deref())?
        }
        Step::Start => {
            jail::native::start(&native.state, &native.id)?;
            0
        }
        Step::Delete => {
            native.delete_now()?;
            0
        }
    })
}
