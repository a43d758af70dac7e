//! The kernel's kills for want of memory, told to containerd.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::TaskOOM;
use plan::incident::Reason;
use plan::numbers::Total;

use crate::container::Container;
use crate::incidents;
use crate::supervisor::Supervisor;

/// How often, and after which time, is looked for a kill once memory was short: half a second in all.
const SHORT_OF_MEMORY: usize = 25;
const MOMENT: Duration = Duration::from_millis(20);

/// Tells of the kills that have not been told yet, and counts them. To be called before an exit is published: who hears of the exit wants
/// to know the reason already.
///
/// Whether there were any.
pub(crate) fn tell(container: &Container, supervisor: &Supervisor) -> bool {
    let kills = match container.cgroup.oom_kills() {
        Ok(kills) => kills,
        Err(error) => {
            tracing::warn!(id = %container.id, error = error.one_line(), "cannot count kills for want of memory");
            return false;
        }
    };
    let new = container.new_oom_kills(kills);
    if new > 0 {
        supervisor.totals.add(Total::OomKill, new);
        incidents::tell(
            supervisor,
            Some(&container.labels),
            Reason::OutOfMemory,
            "the kernel killed a process of the container for want of memory: see its memory limit",
        );
        tracing::info!(id = %container.id, kills, "the kernel killed for want of memory");
        supervisor.events.publish(&TaskOOM {
            container_id: container.id.to_string(),
            ..Default::default()
        });
    }
    new > 0
}

/// Tells of them while the container lives: a process that is killed need not be the first one.
pub(crate) async fn follow(container: Arc<Container>, supervisor: Arc<Supervisor>) {
    let watch = match container.cgroup.watch_oom() {
        Ok(Some(watch)) => watch,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(id = %container.id, error = error.one_line(), "kills for want of memory are told at the end only");
            return;
        }
    };
    loop {
        tokio::select! {
            biased;
            // Told by whoever publishes the exit.
            _ = container.main.wait() => return,
            ready = jail::readable(watch.descriptor()) => {
                watch.clear();
                if ready.is_err() {
                    return;
                }
                // Version 1 tells that memory is short before anybody is chosen, and nothing after the kill.
                for _ in 0..SHORT_OF_MEMORY {
                    if tell(&container, &supervisor) {
                        break;
                    }
                    tokio::time::sleep(MOMENT).await;
                }
            }
        }
    }
}
