//! A program, run through containerd as its own client does it, without image and registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::doctor::containerd::Containerd;
use crate::doctor::finding::Finding;
use crate::doctor::handlers::Handler;

const ABOUT: &str = "canary";
/// containerd's namespace for it, which no kubelet looks into.
const NAMESPACE: &str = "sampan-doctor";
/// What it says.
const WORDS: &str = "sampan works";
/// Far more than a start takes where a disk is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes [`WORDS`] and ends with 0.
const PROGRAM: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "sampan works\n")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 13))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Runs it with a handler; it is gone when this returns, whatever came of it.
pub(super) fn run(containerd: &Containerd, handler: &Handler) -> Finding {
    let Some(ctr) = ctr(containerd) else {
        return Finding::unknown(
            ABOUT,
            "there is no `ctr`, so no program was run through containerd",
            "install ctr, which comes with containerd, or start a pod",
        );
    };
    let name = &handler.name;
    let begun = Instant::now();
    match ran(&ctr, containerd, handler) {
        Ok(()) => Finding::good(
            ABOUT,
            format!(
                "a program of {name} has run, in {} ms from containerd's client on",
                begun.elapsed().as_millis()
            ),
        ),
        Err(reason) => Finding::fault(
            ABOUT,
            format!("a program of {name} does not run: {reason}"),
            "see what is wrong above, and containerd's log (journalctl -u containerd)",
        ),
    }
}

/// containerd's client: beside containerd, or in the usual places.
fn ctr(containerd: &Containerd) -> Option<PathBuf> {
    let beside = containerd.program.with_file_name("ctr");
    let paths = std::env::var("PATH").unwrap_or_default();
    let paths = paths.split(':').map(|dir| Path::new(dir).join("ctr"));
    [beside]
        .into_iter()
        .chain(paths)
        .find(|path| path.is_file())
}

fn ran(ctr: &Path, containerd: &Containerd, handler: &Handler) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("cannot {what}: {error}");
    let dir = tempfile::Builder::new()
        .prefix("sampan-doctor-")
        .tempdir()
        .map_err(|error| failed("make a directory", error))?;
    let root = dir.path().join("rootfs");
    let program = wat::parse_str(PROGRAM).map_err(|error| error.to_string())?;
    std::fs::create_dir(&root)
        .and_then(|()| std::fs::write(root.join("canary.wasm"), program))
        .map_err(|error| failed("write the program", error))?;
    let id = format!("canary-{}", std::process::id());
    let runtime = handler.path.as_ref().map_or_else(
        || handler.runtime.clone(),
        |path| path.display().to_string(),
    );
    let root = root.display().to_string();
    // ctr's own would be below a cgroup of the namespace's name, which nobody removes.
    let cgroup = format!("/{NAMESPACE}-{id}");
    let output = bounded(ask(
        ctr,
        containerd,
        &[
            "run",
            "--rm",
            "--rootfs",
            "--runtime",
            &runtime,
            "--cgroup",
            &cgroup,
            &root,
            &id,
            "/canary.wasm",
        ],
    ));
    // What is not there any more is no error.
    for rest in [
        &["tasks", "kill", "--signal", "SIGKILL", &id][..],
        &["tasks", "delete", "--force", &id],
        &["containers", "delete", &id],
        &["namespaces", "remove", NAMESPACE],
    ] {
        let _ = bounded(ask(ctr, containerd, rest));
    }
    let output = output.map_err(|error| failed("execute ctr", error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.trim() == WORDS {
        return Ok(());
    }
    Err(format!(
        "{}, it wrote {:?}; {}",
        output.status,
        said.trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn ask(ctr: &Path, containerd: &Containerd, arguments: &[&str]) -> Command {
    let mut command = Command::new(ctr);
    command
        .arg("--address")
        .arg(&containerd.address)
        .args(["--namespace", NAMESPACE])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a command says, which is ended when it takes too long.
fn bounded(mut command: Command) -> std::io::Result<Output> {
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(PATIENCE) {
        Ok(output) => output,
        Err(_) => {
            // It has not been waited for, so the number is its own.
            kill_process(pid, Signal::KILL)?;
            ended.recv().map_err(std::io::Error::other)?
        }
    }
}
