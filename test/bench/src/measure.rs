//! The measurements: latency of one task at a time (all contestants in turn, in one run), throughput, and pods that stay.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::stream::{StreamExt as _, TryStreamExt as _};
use harness::{Scratch, proc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::contestant::{Contestant, Packing, Scope};
use crate::footprint::{self, Footprint};
use crate::image::{self, Image};
use crate::life::{Life, Phases};
use crate::programs::{Program, Sign};
use crate::spec::PodRole;
use crate::statistics::Samples;
use crate::task::{self, Container, Order, Yard};

/// A program and the images that hold it.
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) file_name: String,
    pub(crate) sign: Sign,
    /// Bytes of the module or component.
    pub(crate) size: usize,
    artifact: Image,
    /// As a file in a rootfs, where that is measured.
    file: Option<Image>,
}

impl Guest {
    /// Puts the program into containerd's stores as an artifact.
    pub(crate) async fn artifact(yard: &Yard, tag: &str, program: &Program) -> Result<Self> {
        let name = format!("localhost/bench:{tag}");
        Ok(Self {
            name: program.name,
            file_name: program.file.clone(),
            sign: program.sign,
            size: program.wasm.len(),
            artifact: image::artifact(&yard.channel, &name, program.os, &program.wasm).await?,
            file: None,
        })
    }

    /// Likewise, and as a file.
    pub(crate) async fn both(yard: &Yard, tag: &str, program: &Program) -> Result<Self> {
        let name = format!("localhost/bench:{tag}-file");
        let file = image::rootfs(&yard.channel, &name, &program.file, &program.wasm).await?;
        Ok(Self {
            file: Some(file),
            ..Self::artifact(yard, tag, program).await?
        })
    }
}

/// Everything that a measurement needs to make containers.
pub(crate) struct Bench<'s> {
    /// Ids are never used twice: some shims leave a socket behind under their container's id.
    pub(crate) serial: Cell<usize>,
    /// Between two tasks, for the last shim to end outside the next one's time.
    pub(crate) pause: Duration,
    pub(crate) scratch: &'s Scratch,
    /// The containerd's.
    pub(crate) socket: std::path::PathBuf,
    pub(crate) yard: Yard,
    /// The native program, of which pause containers are made too.
    pub(crate) native: Image,
    pub(crate) hello: Guest,
}

/// Samples of one contestant, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    /// From the request to create the task.
    pub(crate) first_byte: Samples,
    /// From the request to create the task to the answer to the request to delete it.
    pub(crate) deleted: Samples,
    pub(crate) phases: Phases,
}

impl Latency {
    fn push(&mut self, life: &Life) {
        self.first_byte.push(life.first_byte);
        self.deleted.push(life.deleted);
        self.phases.push(life);
    }
}

/// Tasks per second with so many at once.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Throughput {
    pub(crate) at_once: usize,
    pub(crate) tasks: usize,
    pub(crate) tasks_per_second: f64,
}

/// Cost of the pods of one contestant.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Density {
    pub(crate) pods: usize,
    /// How many were started at a time.
    pub(crate) at_once: usize,
    pub(crate) total: Footprint,
    /// By how much `MemAvailable` fell, in kB: everything counts here, containerd and the kernel too.
    pub(crate) available_kb: i64,
    /// Until the last guest had shown its sign of life, in seconds.
    pub(crate) up_within_s: f64,
    /// Until the last of them was gone again, in seconds.
    pub(crate) down_within_s: f64,
}

#[allow(clippy::cast_precision_loss, reason = "sums far below 2^52")]
impl Density {
    /// Proportional set size per pod, in MB.
    pub(crate) fn pss_mb(&self) -> f64 {
        self.per_pod(self.total.pss_kb as f64) / 1024.0
    }

    /// What `MemAvailable` lost per pod, in MB.
    pub(crate) fn available_mb(&self) -> f64 {
        self.per_pod(self.available_kb as f64) / 1024.0
    }

    /// Started, until the sign of life.
    pub(crate) fn pods_per_second(&self) -> f64 {
        self.pods as f64 / self.up_within_s
    }

    /// `value` divided among the pods.
    pub(crate) fn per_pod(&self, value: f64) -> f64 {
        value / self.pods as f64
    }
}

/// What start-up leaves for later (caches trimmed, threads parked) is not the cost of a running pod.
const SETTLE: Duration = Duration::from_secs(2);
/// The first port of guests that serve; the network is the run's own.
const FIRST_PORT: u16 = 8080;
/// How long a shim may stay after its last container.
const SHIM_ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Likewise a supervisor for a whole node, which may wait for the next one.
const SUPERVISOR_ENDS_WITHIN: Duration = Duration::from_secs(60);
/// The ids of containers that stay beside what is measured begin so.
const ANCHOR: &str = "anchor";

/// The order of a round's turns: shuffled, so that nobody always follows the same predecessor, and the same in every run,
/// so that runs compare.
pub(crate) fn order_of(round: usize, turns: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..turns).collect();
    order.sort_by_key(|turn| Sha256::digest(format!("{round} {turn}")));
    order
}

/// What a contestant brought, and why it brought no more.
pub(crate) type Outcome<T> = (T, Option<anyhow::Error>);

impl Bench<'_> {
    fn image_of<'g>(&'g self, contestant: &Contestant, guest: &'g Guest) -> Result<&'g Image> {
        Ok(match contestant.packing {
            // The floor mounts nothing and reads nothing; an image without a snapshot is the least work for containerd.
            Packing::Nothing | Packing::Layer => &guest.artifact,
            Packing::Native => &self.native,
            Packing::File => guest
                .file
                .as_ref()
                .with_context(|| format!("{} is not packed as a file", guest.name))?,
        })
    }

    fn serial(&self) -> usize {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        serial
    }

    /// An id that is part of no other one.
    fn id(&self, name: &str) -> String {
        format!("{name}-{:06}", self.serial())
    }

    pub(crate) async fn prepare(
        &self,
        contestant: &Contestant,
        guest: &Guest,
        hold: bool,
    ) -> Result<Container<'_>> {
        self.prepare_as(contestant.name, contestant, guest, hold)
            .await
    }

    async fn prepare_as(
        &self,
        name: &str,
        contestant: &Contestant,
        guest: &Guest,
        hold: bool,
    ) -> Result<Container<'_>> {
        let order = Order {
            id: self.id(name),
            contestant,
            image: self.image_of(contestant, guest)?,
            args: contestant.args(&guest.file_name, hold),
            sign: guest.sign,
            port: FIRST_PORT,
            pod: None,
        };
        self.container(order).await
    }

    async fn container(&self, order: Order<'_>) -> Result<Container<'_>> {
        self.scratch.remember(crate::client::NAMESPACE, &order.id);
        Container::prepare(&self.yard, order).await
    }

    /// One task from create to delete, prepared and cleared away.
    pub(crate) async fn once(&self, contestant: &Contestant, guest: &Guest) -> Result<Life> {
        let mut container = self.prepare(contestant, guest, false).await?;
        let life = container.live().await?;
        container.discard().await?;
        tokio::time::sleep(self.pause).await;
        Ok(life)
    }

    /// From the request to create the task to the first byte of a guest that is then ended.
    pub(crate) async fn first_byte(
        &self,
        contestant: &Contestant,
        guest: &Guest,
    ) -> Result<Duration> {
        let mut container = self.prepare(contestant, guest, true).await?;
        let held = container.hold().await?;
        container.end().await?;
        container.discard().await?;
        tokio::time::sleep(self.pause).await;
        Ok(held.first_byte)
    }

    /// `rounds` rounds in which each of `turns` comes once, so that what the machine does meanwhile hits all alike. A turn
    /// that fails is taken down and does not come again.
    pub(crate) async fn rounds<T, S: Default>(
        &self,
        rounds: usize,
        turns: &[T],
        mut take: impl AsyncFnMut(usize, &T, &mut S) -> Result<()>,
    ) -> Result<Vec<Outcome<S>>> {
        let mut all: Vec<Outcome<S>> = turns.iter().map(|_| (S::default(), None)).collect();
        for round in 0..rounds {
            for turn in order_of(round, turns.len()) {
                let (samples, failure) = &mut all[turn];
                if failure.is_some() {
                    continue;
                }
                if let Err(error) = take(round, &turns[turn], samples).await {
                    *failure = Some(error.context(format!("round {round}")));
                    self.clear().await?;
                }
            }
        }
        Ok(all)
    }

    /// Takes down what a failed measurement left.
    pub(crate) async fn clear(&self) -> Result<()> {
        let spared = |id: &str| id.starts_with(ANCHOR);
        let left = task::sweep(&self.yard.channel, self.scratch, spared).await?;
        ensure!(
            left.is_empty(),
            "take down what was left: {}",
            left.join("; ")
        );
        Ok(())
    }

    /// One life of each contestant a round.
    pub(crate) async fn latency(
        &self,
        contestants: &[Contestant],
        rounds: usize,
    ) -> Result<Vec<Outcome<Latency>>> {
        self.rounds(
            rounds,
            contestants,
            async |_, contestant, latency: &mut Latency| {
                latency.push(&self.once(contestant, &self.hello).await?);
                Ok(())
            },
        )
        .await
    }

    /// A container that stays beside what is measured, for each contestant whose supervisor serves the whole node: there
    /// it lives as long as the node has pods.
    pub(crate) async fn anchors(&self, contestants: &[Contestant]) -> Result<Vec<Container<'_>>> {
        let mut anchors = Vec::new();
        for contestant in contestants.iter().filter(|it| it.scope == Scope::Node) {
            let mut anchor = self
                .prepare_as(ANCHOR, contestant, &self.hello, true)
                .await?;
            anchor.hold().await?;
            anchors.push(anchor);
        }
        Ok(anchors)
    }

    /// Takes them away again.
    pub(crate) async fn weigh(&self, anchors: Vec<Container<'_>>) -> Result<()> {
        for mut anchor in anchors {
            anchor.end().await?;
            anchor.discard().await?;
        }
        Ok(())
    }

    /// Waits until no supervisor of the contestant is there. Those that stay without a container are told of and killed.
    pub(crate) async fn no_supervisor(&self, contestant: &Contestant) -> Result<()> {
        let shims = || footprint::shims(&contestant.program, &self.socket);
        let gone = async || Ok(shims()?.is_empty().then_some(()));
        let within = match contestant.scope {
            Scope::Pod => SHIM_ENDS_WITHIN,
            Scope::Node => SUPERVISOR_ENDS_WITHIN,
        };
        if harness::until("the end of the shims", within, gone)
            .await
            .is_ok()
        {
            return Ok(());
        }
        let left = shims()?;
        eprintln!("bench: {} leaves shims behind: {left:?}", contestant.name);
        for pid in left {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        harness::until("the end of killed shims", within, gone).await
    }

    /// `tasks` tasks, `at_once` of them at any time. Records and snapshots are made before and removed after the clock runs.
    pub(crate) async fn throughput(
        &self,
        contestant: &Contestant,
        at_once: usize,
        tasks: usize,
    ) -> Result<Throughput> {
        let mut containers = Vec::with_capacity(tasks);
        for _ in 0..tasks {
            containers.push(self.prepare(contestant, &self.hello, false).await?);
        }
        let zero = Instant::now();
        futures::stream::iter(containers.iter_mut().map(|container| async {
            container.live().await?;
            anyhow::Ok(())
        }))
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
        let elapsed = zero.elapsed();
        for container in containers {
            container.discard().await?;
        }
        #[allow(clippy::cast_precision_loss, reason = "a few hundred tasks")]
        let tasks_per_second = tasks as f64 / elapsed.as_secs_f64();
        Ok(Throughput {
            at_once,
            tasks,
            tasks_per_second,
        })
    }

    /// `pods` pods, each of a pause container and one guest that stays, all up at the same time, `at_once` of them started
    /// at any time.
    pub(crate) async fn density(
        &self,
        contestant: &Contestant,
        guest: &Guest,
        pods: usize,
        at_once: usize,
    ) -> Result<Density> {
        let before = proc::available_kb()?;
        let zero = Instant::now();
        let up: Vec<Pod<'_>> = futures::stream::iter(0..pods)
            .map(|number| async move {
                let pod = self.pod(contestant, guest, number).await;
                pod.with_context(|| format!("pod {number} of {pods}"))
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await?;
        let up_within_s = zero.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let tasks: Vec<u32> = up.iter().flat_map(|pod| pod.tasks).collect();
        let total = Footprint::of_side(&contestant.program, &self.socket, &tasks)?;
        let after = proc::available_kb()?;
        let zero = Instant::now();
        for pod in up {
            pod.end().await?;
        }
        ensure!(
            total.processes > 0,
            "no process of {} was found",
            contestant.name
        );
        Ok(Density {
            pods,
            at_once,
            total,
            available_kb: before.cast_signed() - after.cast_signed(),
            up_within_s,
            down_within_s: zero.elapsed().as_secs_f64(),
        })
    }

    async fn pod(&self, contestant: &Contestant, guest: &Guest, number: usize) -> Result<Pod<'_>> {
        let pause_image = match contestant.packing {
            Packing::Nothing => &self.hello.artifact,
            // A pod's pause image is a native one, whatever runs beside it.
            Packing::Native | Packing::Layer | Packing::File => &self.native,
        };
        // The id tells the floor which containers belong together; the others read the annotation.
        let serial = self.serial();
        let id = format!("hold-{serial:06}-pause");
        let mut pause = self
            .container(Order {
                id: id.clone(),
                contestant,
                image: pause_image,
                args: vec!["/hello".to_owned(), "hold".to_owned()],
                sign: Sign::Line,
                port: FIRST_PORT,
                pod: Some((&id, PodRole::Sandbox)),
            })
            .await?;
        // The pause container of some runtimes has no output.
        let holder = pause.hold_silently().await?;
        let mut container = self
            .container(Order {
                id: format!("hold-{serial:06}-guest"),
                contestant,
                image: self.image_of(contestant, guest)?,
                args: contestant.args(&guest.file_name, true),
                sign: guest.sign,
                port: FIRST_PORT + u16::try_from(number)?,
                pod: Some((&id, PodRole::Container)),
            })
            .await?;
        let held = container.hold().await?;
        Ok(Pod {
            pause,
            guest: container,
            tasks: [holder, held.pid],
        })
    }
}

/// A pod that is up.
struct Pod<'b> {
    pause: Container<'b>,
    guest: Container<'b>,
    /// The processes that containerd knows.
    tasks: [u32; 2],
}

impl Pod<'_> {
    /// The guest before its pause container, as the kubelet does.
    async fn end(self) -> Result<()> {
        for mut container in [self.guest, self.pause] {
            container.end().await?;
            container.discard().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::order_of;

    #[test]
    fn every_round_has_every_contestant_once_in_changing_order() {
        let mut orders = std::collections::HashSet::new();
        for round in 0..50 {
            let order = order_of(round, 6);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5]);
            orders.insert(order);
        }
        assert!(orders.len() > 40);
    }
}
