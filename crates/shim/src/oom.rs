//! The kernel's kills for want of memory, told to containerd.

use std::sync::Arc;

use containerd_shim_protos::events::task::TaskOOM;

use crate::container::Container;
use crate::events::Events;

/// Tells of the kills that have not been told yet. To be called before an exit is published: who hears of the exit wants
/// to know the reason already.
pub(crate) fn tell(container: &Container, events: &Events) {
    let kills = match container.cgroup.oom_kills() {
        Ok(kills) => kills,
        Err(error) => {
            tracing::warn!(id = %container.id, error = error.one_line(), "cannot count kills for want of memory");
            return;
        }
    };
    if container.new_oom_kills(kills) {
        tracing::info!(id = %container.id, kills, "the kernel killed for want of memory");
        events.publish(&TaskOOM {
            container_id: container.id.to_string(),
            ..Default::default()
        });
    }
}

/// Tells of them while the container lives: a process that is killed need not be the first one.
pub(crate) async fn follow(container: Arc<Container>, events: Events) {
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
                tell(&container, &events);
            }
        }
    }
}
