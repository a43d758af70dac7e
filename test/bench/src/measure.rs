//! The measurements: latency of one task at a time (all contestants in turn, in one run), throughput, and footprint.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::contestant::{Contestant, Packing};
use crate::figures::Samples;
use crate::footprint::Footprint;
use crate::image::Image;
use crate::spec::PodRole;
use crate::task::{Container, Life, Order, Yard};

/// The images, one for each way of packing.
pub(crate) struct Images {
    pub(crate) native: Image,
    pub(crate) artifact: Image,
    pub(crate) file: Image,
}

impl Images {
    fn of(&self, packing: Packing) -> &Image {
        match packing {
            // The floor mounts nothing and reads nothing; an image without a snapshot is the least work for containerd.
            Packing::Nothing | Packing::Layer => &self.artifact,
            Packing::Native => &self.native,
            Packing::File => &self.file,
        }
    }
}

/// Everything that a measurement needs to make containers.
pub(crate) struct Bench {
    /// Ids are never used twice: some shims leave a socket behind under their container's id.
    pub(crate) serial: Cell<usize>,
    /// Between two tasks, for the last shim to end outside the next one's time.
    pub(crate) pause: Duration,
    pub(crate) yard: Yard,
    pub(crate) images: Images,
}

/// Samples of one contestant, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) created: Samples,
    pub(crate) started: Samples,
    pub(crate) first_byte: Samples,
    pub(crate) deleted: Samples,
    /// containerd's own work before the task is created.
    pub(crate) snapshot: Samples,
    pub(crate) record: Samples,
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
    pub(crate) total: Footprint,
    /// Until the last guest had written its line, in seconds.
    pub(crate) up_within_s: f64,
}

impl Density {
    /// `value` divided among the pods.
    #[allow(clippy::cast_precision_loss, reason = "sums far below 2^52")]
    pub(crate) fn per_pod(&self, value: u64) -> f64 {
        value as f64 / self.pods as f64
    }
}

const SETTLE: Duration = Duration::from_secs(2);

/// The contestants' order in a round: shuffled, so that nobody always follows the same predecessor, and the same in every
/// run, so that runs compare.
fn order_of(round: usize, contestants: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contestants).collect();
    order.sort_by_key(|turn| Sha256::digest(format!("{round} {turn}")));
    order
}

impl Bench {
    /// One task from create to delete, prepared and cleared away.
    pub(crate) async fn once(&self, contestant: &Contestant) -> Result<(Life, [Duration; 2])> {
        let mut container = self.prepare(contestant).await?;
        let life = container.live().await?;
        let own = [container.snapshot, container.record];
        container.discard().await?;
        tokio::time::sleep(self.pause).await;
        Ok((life, own))
    }

    fn serial(&self) -> usize {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        serial
    }

    async fn prepare(&self, contestant: &Contestant) -> Result<Container<'_>> {
        let order = Order {
            id: format!("{}-{}", contestant.name, self.serial()),
            contestant,
            image: self.images.of(contestant.packing),
            args: contestant.args(false),
            pod: None,
        };
        Container::prepare(&self.yard, order).await
    }

    /// `rounds` tasks of each contestant, in turn: what the machine does meanwhile hits all alike.
    pub(crate) async fn latency(
        &self,
        contestants: &[Contestant],
        rounds: usize,
    ) -> Result<Vec<Latency>> {
        let mut all = vec![Latency::default(); contestants.len()];
        for round in 0..rounds {
            for turn in order_of(round, contestants.len()) {
                let (life, [snapshot, record]) = self.once(&contestants[turn]).await?;
                let latency = &mut all[turn];
                latency.created.push(life.created);
                latency.started.push(life.started);
                latency.first_byte.push(life.first_byte);
                latency.deleted.push(life.deleted);
                latency.snapshot.push(snapshot);
                latency.record.push(record);
            }
        }
        Ok(all)
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
            containers.push(self.prepare(contestant).await?);
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

    /// `pods` pods, each of a pause container and one guest that stays, all up at the same time.
    pub(crate) async fn density(
        &self,
        contestant: &Contestant,
        pods: usize,
        socket: &Path,
    ) -> Result<Density> {
        let pause_image = match contestant.packing {
            Packing::Nothing => &self.images.artifact,
            // A pod's pause image is a native one, whatever runs beside it.
            Packing::Native | Packing::Layer | Packing::File => &self.images.native,
        };
        let zero = Instant::now();
        let mut containers = Vec::new();
        let mut tasks = Vec::new();
        for number in 0..pods {
            // The id tells the floor which containers belong together; the others read the annotation.
            let serial = self.serial();
            let pod = format!("hold-{serial}-pause");
            let guest = format!("hold-{serial}-guest");
            let members = [
                (
                    pod.clone(),
                    pause_image,
                    vec!["/hello", "hold"],
                    PodRole::Sandbox,
                ),
                (
                    guest,
                    self.images.of(contestant.packing),
                    contestant.args(true),
                    PodRole::Container,
                ),
            ];
            for (id, image, args, role) in members {
                let order = Order {
                    id,
                    contestant,
                    image,
                    args,
                    pod: Some((&pod, role)),
                };
                let mut container = Container::prepare(&self.yard, order).await?;
                let held = match role {
                    PodRole::Container => container.hold().await,
                    // The pause container of some runtimes has no output.
                    PodRole::Sandbox => container.hold_silently().await,
                };
                tasks.push(held.with_context(|| format!("pod {number} of {pods}"))?);
                containers.push(container);
            }
        }
        let up = zero.elapsed();
        // What start-up leaves for later (caches trimmed, threads parked) is not the cost of a running pod.
        tokio::time::sleep(SETTLE).await;
        let total = Footprint::of_side(contestant.shim, socket, &tasks)?;
        // The guest before its pause container, as the kubelet does.
        for mut container in containers.into_iter().rev() {
            container.end().await?;
            container.discard().await?;
        }
        ensure!(
            total.processes > 0,
            "no process of {} was found",
            contestant.name
        );
        Ok(Density {
            pods,
            total,
            up_within_s: up.as_secs_f64(),
        })
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
