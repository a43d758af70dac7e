//! A process that is executed in a container that runs: added by Exec, made by Start.

mod program;

use std::os::fd::AsFd;

use jail::{Child, JoinRequest, Launch};
use plan::ExecPlan;

use crate::container::{Container, Runs};
use crate::failure::{Outcome, of_jail};
use crate::launch::{self, Beside};
use crate::native::Native;
use crate::process::{Phase, Process};
use crate::stdio::{self, Held, Streams};
use crate::supervisor::Supervisor;
use crate::totals;
use crate::trace::Trace;
use program::Chosen;

/// Such a process.
pub(crate) struct Exec {
    /// containerd's id of it, its own in the container.
    pub(crate) id: String,
    pub(crate) process: Process,
    plan: ExecPlan,
}

impl Exec {
    pub(crate) fn new(container: &Container, id: &str, plan: ExecPlan, streams: Streams) -> Self {
        let name = format!("process {id} of container {}", container.id);
        Self {
            id: id.to_owned(),
            process: Process::new(name, streams, plan.size),
            plan,
        }
    }

    /// Start: makes the process and lets it run. Valid once, while the container runs. One that could not be made has
    /// ended.
    pub(crate) async fn start(
        &self,
        supervisor: &Supervisor,
        container: &Container,
    ) -> Outcome<()> {
        self.process.can_start()?;
        match self.make(supervisor, container).await {
            Ok((child, held)) => {
                self.process.made(child, held);
                self.process.begun();
                Ok(())
            }
            Err(failure) => {
                self.process.given_up();
                Err(failure)
            }
        }
    }

    async fn make(&self, supervisor: &Supervisor, container: &Container) -> Outcome<(Child, Held)> {
        running(container)?;
        if container.is_paused() {
            // A new process would stand still too, and whoever waits for it would wait for ever.
            return Err(container
                .main
                .in_wrong_phase("is paused: nothing can be executed in it"));
        }
        let (child, held) = match &container.runs {
            Runs::Guest(beside) => self.guest(supervisor, container, beside).await?,
            Runs::Native(native) => self.native(supervisor, container, native).await?,
            Runs::Holder => {
                return Err(container
                    .main
                    .in_wrong_phase("holds the pod and executes nothing"));
            }
        };
        // What was made after the container's end nobody else would end: that it is dropped kills it. (Not because of a
        // pause meanwhile: what stands still cannot die, and to drop it would wait for that.)
        running(container)?;
        self.process.can_start()?;
        if let Runs::Guest(_) = container.runs {
            child.go().map_err(|error| of_jail(&error))?;
        }
        Ok((child, held))
    }

    async fn guest(
        &self,
        supervisor: &Supervisor,
        container: &Container,
        beside: &Beside,
    ) -> Outcome<(Child, Held)> {
        let mut guest = self.plan.guest(&beside.launch.guest);
        if let Some(bytes) = *container.guest_memory() {
            guest.limits.memory = Some(bytes);
        }
        let other;
        let (compiled, name) = match program::choose(&mut guest, container, beside).await? {
            Chosen::Own => (&beside.compiled, beside.name.clone()),
            Chosen::Other(bytes) => {
                let name = bytes.name.clone();
                other = launch::compiled(
                    supervisor,
                    &beside.runner,
                    &guest.engine,
                    bytes,
                    &Trace::default(),
                )
                .await?;
                (&other, name)
            }
        };
        let streams = stdio::open(
            &self.process.streams,
            container.id.as_str(),
            &supervisor.namespace,
        );
        let (ends, held) = streams.await?.ends()?;
        // Compiling takes its time.
        let Some(first) = container.main.child() else {
            return Err(container.main.in_wrong_phase("does not run"));
        };
        let _entering = container.enter()?;
        let page = totals::page(&container.dir);
        let child = jail::join(JoinRequest {
            runner: &beside.runner,
            launch: &Launch {
                guest,
                // Nobody reads its wire.
                tracing: None,
                ..beside.launch.clone()
            },
            artifact: compiled.artifact.descriptor(),
            beside: first,
            stdio: [ends.stdin, ends.stdout, ends.stderr].map(Some),
            terminal: self.process.streams.terminal,
            cgroup: &container.cgroup,
            numbers: page.as_ref().map(AsFd::as_fd),
        })
        .map_err(|error| of_jail(&error))?;
        launch::ready(&child, compiled, &name, &Trace::default()).await?;
        Ok((child, held))
    }

    async fn native(
        &self,
        supervisor: &Supervisor,
        container: &Container,
        native: &Native,
    ) -> Outcome<(Child, Held)> {
        let streams = stdio::open(
            &self.process.streams,
            container.id.as_str(),
            &supervisor.namespace,
        );
        let process = self.plan.sized(self.process.size());
        let (pid, held) = native.exec(&process, streams.await?).await?;
        let child = Child::adopt(pid).map_err(|error| of_jail(&error))?;
        Ok((child, held))
    }

    /// Whether there is a process.
    pub(crate) fn is_there(&self) -> bool {
        self.process.child().is_some() && !matches!(self.process.phase(), Phase::Stopped(_))
    }

    /// The container has ended: so does this.
    pub(crate) fn end(&self) {
        match (self.process.phase(), self.process.child()) {
            (Phase::Created, None) => self.process.given_up(),
            (Phase::Created | Phase::Running, Some(child)) => {
                // That it has ended already is what is wanted.
                let _ = child.kill(nix::libc::SIGKILL);
            }
            (Phase::Running | Phase::Stopped(_), _) => {}
        }
    }
}

fn running(container: &Container) -> Outcome<()> {
    match container.main.phase() {
        Phase::Running => Ok(()),
        Phase::Created => Err(container
            .main
            .in_wrong_phase("was not started: nothing can be executed in it")),
        Phase::Stopped(_) => Err(container
            .main
            .in_wrong_phase("has stopped: nothing can be executed in it")),
    }
}
