//! How containers end that are told to: how fast, and by which signals.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Containerd, Stdio, Task, Version, until};
use shim_tests::{containerd, layer, status};
use tokio::sync::Mutex;

const DEADLINE: Duration = Duration::from_secs(20);
/// From the signal to the end of a command.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Each of so many ends by the signal, and in the middle of them is what is promised: one that had to wait for a processor
/// is the machine's.
const ATTEMPTS: usize = 9;

/// The tests of this file take turns: where there are two processors, two of them would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

async fn started<'a>(
    containerd: &'a Containerd,
    image: &str,
    args: &[&str],
    says: &str,
) -> Result<Task<'a>> {
    let builder = containerd.task(image).stdin(Stdio::Fifo);
    let mut task = builder.args(args.iter().copied()).create().await?;
    task.start().await?;
    task.stdout_contains(says).await?;
    Ok(task)
}

/// Computing, or blocked in a call of the host.
async fn ends_at_once(guest: &str, states: &[(&[&str], &str)]) -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, guest).await?;
    for (args, says) in states {
        let mut times = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut task = started(&containerd, &image, args, says).await?;
            let began = Instant::now();
            task.kill(15).await?;
            assert_eq!(task.wait().await?, 143, "{guest} {args:?}");
            times.push(began.elapsed());
            task.delete().await?;
        }
        times.sort_unstable();
        assert!(times[ATTEMPTS / 2] < AT_ONCE, "{guest} {args:?}: {times:?}");
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_ends_at_once_whatever_it_does() -> Result<()> {
    let states = [
        (&["/", "spin"][..], "spinning"),
        (&["/", "sleep", "600000"], "sleeping"),
        (&["/", "tick", "600000"], "tick 0"),
        (&["/", "block"], "waiting for the end of input"),
    ];
    ends_at_once("probe.wasm", &states).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_ends_at_once_whatever_it_does() -> Result<()> {
    let states = [
        (&["/", "spin"][..], "spinning"),
        (&["/", "sleep", "600000"], "sleeping"),
        (&["/", "block"], "waiting for the end of input"),
        (&["/", "tcp-listen", "127.0.0.1", "0"], "listening"),
    ];
    ends_at_once("probe-p2.wasm", &states).await
}

/// The table of `docs/reference.md`.
#[tokio::test(flavor = "multi_thread")]
async fn signals_mean_what_the_table_says() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let command = layer(&containerd, "probe.wasm").await?;
    let spin = &["/", "spin"][..];
    // SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM and a real-time signal.
    for signal in [1, 2, 3, 10, 12, 14, 15, 40] {
        let mut task = started(&containerd, &command, spin, "spinning").await?;
        task.kill(signal).await?;
        assert_eq!(task.wait().await?, 128 + signal, "signal {signal}");
        task.delete().await?;
    }
    // SIGPIPE, SIGCHLD, SIGCONT, SIGURG, SIGWINCH: it goes on until another comes.
    let mut task = started(&containerd, &command, spin, "spinning").await?;
    for signal in [13, 17, 18, 23, 28] {
        task.kill(signal).await?;
    }
    task.kill(12).await?;
    assert_eq!(task.wait().await?, 128 + 12, "the last of them");
    task.delete().await?;
    containerd.assert_clean().await
}

/// A server ends with 0 by the signals that ask it to, also when they come before it listens, and by the others as a
/// command does.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_asked_by_two_signals_and_ended_by_the_others() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["http-p2.wasm", "http-p3.wasm"] {
        let image = layer(&containerd, guest).await?;
        for (signal, status) in [(15, 0), (2, 0), (1, 129), (10, 138), (9, 137)] {
            let mut task = containerd.task(&image).args(["/"]).create().await?;
            task.start().await?;
            // Without waiting for anything: whether it listens already is chance.
            task.kill(signal).await?;
            assert_eq!(task.wait().await?, status, "{guest} signal {signal}");
            task.delete().await?;
        }
    }
    containerd.assert_clean().await
}

/// A thread that has taken one may not have said so yet when the server looks whether one came before it listened.
#[tokio::test(flavor = "multi_thread")]
async fn no_thread_but_the_first_takes_what_asks_a_server_to_end() -> Result<()> {
    const ASKING: u64 = 1 << (2 - 1) | 1 << (15 - 1);
    let _turn = TURN.lock().await;
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["http-p2.wasm", "http-p3.wasm"] {
        let image = layer(&containerd, guest).await?;
        let mut task = containerd.task(&image).args(["/"]).create().await?;
        task.start().await?;
        let process = PathBuf::from(format!("/proc/{}", task.pid()));
        until("the first thread to take them", DEADLINE, async || {
            Ok((blocked(&process)? & ASKING == 0).then_some(()))
        })
        .await?;
        let mut others = 0;
        for thread in std::fs::read_dir(process.join("task"))? {
            let thread = thread?;
            if thread.file_name() != *task.pid().to_string() {
                others += 1;
                assert_eq!(blocked(&thread.path())? & ASKING, ASKING, "{guest}");
            }
        }
        assert!(others > 0, "{guest} has one thread");
        task.kill(15).await?;
        assert_eq!(task.wait().await?, 0, "{guest}");
        task.delete().await?;
    }
    containerd.assert_clean().await
}

/// The signals that a thread has blocked, the first in the lowest bit.
fn blocked(thread: &Path) -> Result<u64> {
    Ok(u64::from_str_radix(&status(thread, "SigBlk")?, 16)?)
}
