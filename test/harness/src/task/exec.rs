use std::time::Instant;

use anyhow::{Context, Result, bail};
use containerd_client::services::v1 as api;
use containerd_client::types::v1::Process;
use prost_types::Any;
use serde_json::{Value, json};
use tonic::Status;

use super::{DEADLINE, Output, Stdio, Task, stdio};
use crate::unique;

/// A process to be executed in a task's container: a copy of the container's own, as `ctr task exec` makes it.
pub struct ExecBuilder<'t> {
    task: &'t Task<'t>,
    id: String,
    process: Value,
    stdin: Stdio,
    terminal: bool,
}

impl<'t> ExecBuilder<'t> {
    pub(super) fn new<'s>(task: &'t Task<'_>, args: impl IntoIterator<Item = &'s str>) -> Self {
        let mut process = task.process.clone();
        process["args"] = args.into_iter().map(Value::from).collect();
        process["terminal"] = json!(false);
        Self {
            task,
            id: format!("e{}", unique()),
            process,
            stdin: Stdio::Null,
            terminal: false,
        }
    }

    /// Its id; a random one unless told.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// Adds a variable to the container's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        if let Some(env) = self.process["env"].as_array_mut() {
            env.push(json!(format!("{name}={value}")));
        }
        self
    }

    /// The working directory; the container's unless told.
    #[must_use]
    pub fn cwd(mut self, cwd: &str) -> Self {
        self.process["cwd"] = json!(cwd);
        self
    }

    /// Where stdin comes from; nowhere unless told.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = stdin;
        self
    }

    /// Gives it a terminal, whose other end is the stdout FIFO.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self.process["terminal"] = json!(true);
        self
    }

    /// Changes the finished OCI process.
    #[must_use]
    pub fn process(mut self, edit: impl FnOnce(&mut Value)) -> Self {
        edit(&mut self.process);
        self
    }

    /// Adds it to the container: the one call `Tasks.Exec`.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn add(self) -> Result<Exec<'t>> {
        let name = format!("{}-{}", self.task.id, self.id);
        let dir = self.task.containerd.scratch().dir().join("io").join(name);
        // A second one of the same id is refused, and must not take the first one's streams away.
        if dir.exists() {
            bail!(
                "the test uses the id {} twice: `Exec::again` does that",
                self.id
            );
        }
        let stderr = if self.terminal {
            Stdio::Null
        } else {
            Stdio::Fifo
        };
        let exec = Exec {
            task: self.task,
            id: self.id,
            process: self.process,
            terminal: self.terminal,
            streams: stdio::Streams::make(&dir, self.stdin, Stdio::Fifo, stderr)?,
            started: Instant::now(),
        };
        exec.again().await?;
        Ok(exec)
    }

    /// Adds it, starts it, waits for its end, deletes it.
    ///
    /// # Errors
    /// What containerd says, or that it ran for more than two minutes.
    pub async fn run(self) -> Result<Output> {
        let mut exec = self.add().await?;
        if let Err(status) = exec.start().await {
            exec.delete().await.context("delete what was not started")?;
            return Err(status.into());
        }
        let status = exec.wait().await?;
        exec.delete().await?;
        Ok(exec.output(status).await)
    }
}

/// A process that has been added to a container.
#[derive(Debug)]
pub struct Exec<'t> {
    task: &'t Task<'t>,
    id: String,
    process: Value,
    terminal: bool,
    streams: stdio::Streams,
    started: Instant,
}

impl Exec<'_> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Asks for the same once more, which is refused unless it was deleted.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn again(&self) -> Result<(), Status> {
        let exec = api::ExecProcessRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
            stdin: self.streams.stdin_uri(),
            stdout: self.streams.stdout_uri(),
            stderr: self.streams.stderr_uri(),
            terminal: self.terminal,
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: self.process.to_string().into_bytes(),
            }),
        };
        let request = self.task.request(exec);
        self.task.service().exec(request).await.map(drop)
    }

    /// Starts it; returns its pid.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn start(&mut self) -> Result<u32, Status> {
        let start = api::StartRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
        };
        self.started = Instant::now();
        let answer = self.task.service().start(self.task.request(start)).await?;
        Ok(answer.into_inner().pid)
    }

    /// Waits for its end, at most two minutes; returns the exit status.
    ///
    /// # Errors
    /// What containerd says, or that the two minutes are over.
    pub async fn wait(&self) -> Result<u32> {
        let wait = api::WaitRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
        };
        let request = self.task.request(wait);
        match tokio::time::timeout(DEADLINE, self.task.service().wait(request)).await {
            Ok(answer) => Ok(answer
                .context("wait for the process")?
                .into_inner()
                .exit_status),
            Err(_) => bail!(
                "process {} has not ended within {} s",
                self.id,
                DEADLINE.as_secs()
            ),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn kill(&self, signal: u32) -> Result<(), Status> {
        let kill = api::KillRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
            signal,
            all: false,
        };
        let request = self.task.request(kill);
        self.task.service().kill(request).await.map(drop)
    }

    /// It as containerd sees it: status, pid, exit status.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn state(&self) -> Result<Process, Status> {
        let get = api::GetRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
        };
        let answer = self.task.service().get(self.task.request(get)).await?;
        answer
            .into_inner()
            .process
            .ok_or_else(|| Status::internal("the answer has no process"))
    }

    /// Tells the size of its terminal.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn resize(&self, width: u32, height: u32) -> Result<(), Status> {
        let resize = api::ResizePtyRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
            width,
            height,
        };
        let request = self.task.request(resize);
        self.task.service().resize_pty(request).await.map(drop)
    }

    /// Writes to its stdin.
    ///
    /// # Errors
    /// When stdin is no FIFO, was closed, or nobody reads it any more.
    pub async fn write_stdin(&mut self, bytes: &[u8]) -> Result<()> {
        self.streams.write_stdin(bytes).await
    }

    /// Closes our end of stdin and tells the shim (`CloseIO`), as clients of containerd do.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn close_stdin(&mut self) -> Result<(), Status> {
        self.streams.close_stdin();
        let close = api::CloseIoRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
            stdin: true,
        };
        let request = self.task.request(close);
        self.task.service().close_io(request).await.map(drop)
    }

    /// Waits until stdout contains a text, at most two minutes.
    ///
    /// # Errors
    /// When stdout ends or the time is over before: the message shows what there is.
    pub async fn stdout_contains(&self, text: &str) -> Result<()> {
        self.streams.stdout_contains(text, DEADLINE).await
    }

    /// Deletes it; returns the exit status.
    ///
    /// # Errors
    /// What containerd says, with its code.
    pub async fn delete(&self) -> Result<u32, Status> {
        let delete = api::DeleteProcessRequest {
            container_id: self.task.id.clone(),
            exec_id: self.id.clone(),
        };
        let request = self.task.request(delete);
        let answer = self.task.service().delete_process(request).await?;
        Ok(answer.into_inner().exit_status)
    }

    /// All output, after it was deleted.
    pub async fn output(&mut self, status: u32) -> Output {
        let first_byte = self.streams.first_byte().map(|at| at - self.started);
        let (stdout, stderr) = self.streams.finish().await;
        Output {
            status,
            stdout,
            stderr,
            first_byte,
        }
    }
}
