//! What a guest wants to do before it ends: the export that the setting `on-term` names, run in an instance of its own
//! with the container's grants. SIGTERM is held back until it has ended; the time for both is the grace period of
//! whoever sent it.

use std::sync::Arc;

use plan::ExecPlan;

use crate::container::{Container, Runs};
use crate::exec::Exec;
use crate::process::Phase;
use crate::stdio::Streams;
use crate::supervisor::Supervisor;

/// Its id among the processes of the container. containerd hears nothing of it.
const ID: &str = "on-term";

/// Begins it, at the first SIGTERM. False where there is nothing to run, or it has begun before: then the signal is the
/// guest's at once.
pub(crate) fn holds_back(supervisor: &Arc<Supervisor>, container: &Arc<Container>) -> bool {
    let Runs::Guest(beside) = &container.runs else {
        return false;
    };
    let guest = &beside.launch.guest;
    let Some(export) = &guest.on_term else {
        return false;
    };
    if container.main.phase() != Phase::Running || container.was_asked_to_end() {
        return false;
    }
    let plan = ExecPlan::of_export(guest, export);
    let exec = Exec::new(
        container,
        ID,
        plan,
        beside_the_main(&container.main.streams),
    );
    if let Err(failure) = container.add(exec) {
        tracing::warn!(id = %container.id, %failure, "on-term is not run");
        return false;
    }
    tokio::spawn(run(supervisor.clone(), container.clone()));
    true
}

/// What it writes goes where the guest's output goes. A logging program is not started a second time.
fn beside_the_main(main: &Streams) -> Streams {
    let output = |uri: &str| {
        let own = uri.starts_with("binary://");
        if own { String::new() } else { uri.to_owned() }
    };
    Streams {
        stdin: String::new(),
        stdout: output(&main.stdout),
        // With a terminal there is one stream for both.
        stderr: output(if main.terminal {
            &main.stdout
        } else {
            &main.stderr
        }),
        terminal: false,
    }
}

async fn run(supervisor: Arc<Supervisor>, container: Arc<Container>) {
    let id = &container.id;
    if let Ok(exec) = container.exec(ID) {
        match exec.start(&supervisor, &container).await {
            Ok(()) => {
                let exit = exec.process.reap().await;
                exec.process.close().await;
                exec.process.stopped(exit);
                tracing::info!(%id, status = exit.status, "on-term has ended");
            }
            Err(failure) => tracing::warn!(%id, %failure, "on-term is not run"),
        }
        container.forget(ID);
    }
    // It may have ended meanwhile, which is what is wanted.
    if let Err(failure) = container.main.kill(nix::libc::SIGTERM) {
        tracing::debug!(%id, %failure, "no SIGTERM after on-term");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_shared_and_input_is_not() {
        let main = Streams {
            stdin: "/in".into(),
            stdout: "/out".into(),
            stderr: "/err".into(),
            terminal: false,
        };
        let beside = beside_the_main(&main);
        assert_eq!(
            (
                beside.stdin.as_str(),
                beside.stdout.as_str(),
                beside.stderr.as_str()
            ),
            ("", "/out", "/err")
        );
        let logged = Streams {
            stdout: "binary:///bin/log".into(),
            ..main
        };
        assert_eq!(beside_the_main(&logged).stdout, "");
    }
}
