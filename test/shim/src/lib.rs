//! What the tests of the shim through containerd's Task API share: a containerd without CRI, and images of guests.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Containerd, Task, TaskBuilder, Version, image, until};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(20);

/// A containerd without CRI; `None` where the test has to be skipped, which has been said then.
///
/// # Errors
/// When it does not come up.
pub async fn containerd(version: Version) -> Result<Option<Containerd>> {
    if !harness::able()? {
        return Ok(None);
    }
    Containerd::builder()
        .version(version)
        .without_cri()
        .start()
        .await
        .map(Some)
}

/// A field of the `status` of a process or a thread, which is a directory below `/proc` (proc(5)).
///
/// # Errors
/// When it has ended, or the field is not there.
pub fn status(of: impl AsRef<Path>, field: &str) -> Result<String> {
    let text = fs::read_to_string(of.as_ref().join("status"))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(value
        .with_context(|| format!("no {field}"))?
        .trim()
        .to_owned())
}

/// Imports an image with a guest of `test/guests` as its one layer, and returns its reference.
///
/// # Errors
/// When the guest was not built, or containerd refuses the image.
pub async fn layer(containerd: &Containerd, guest: &str) -> Result<String> {
    let reference = format!("example.test/{}:v1", guest.replace('.', "-"));
    let image = image::bytecode_alliance(harness::guest(guest)?);
    containerd.import(&reference, &image).await?;
    Ok(reference)
}

/// Imports an ordinary image of this machine's platform with the guest as the file `/app.wasm`, and returns its
/// reference.
///
/// # Errors
/// As [`layer`].
pub async fn rootfs(containerd: &Containerd, guest: &str) -> Result<String> {
    let reference = format!("example.test/rootfs-{}:v1", guest.replace('.', "-"));
    let image = image::Rootfs::new()
        .file("/app.wasm", harness::guest(guest)?)
        .entrypoint(["/app.wasm"])
        .build()?;
    containerd.import(&reference, &image).await?;
    Ok(reference)
}

/// Deletes a task as a client does that does not know what has happened: again until containerd has done it or knows
/// nothing of the task; then the records go.
///
/// # Errors
/// When that takes too long.
pub async fn deleted(task: &mut Task<'_>) -> Result<()> {
    until("containerd to delete the task", DEADLINE, async || {
        match task.delete_task().await {
            Ok(_) => Ok(Some(())),
            Err(status) if status.code() == Code::NotFound => Ok(Some(())),
            // It has not noticed the end of its shim yet.
            Err(_) => Ok(None),
        }
    })
    .await?;
    task.remove_records().await
}

/// Makes it the container of a pod itself, as CRI does: the process that holds the pod's namespaces.
pub fn of_pod<'a>(task: TaskBuilder<'a>, pod: &str) -> TaskBuilder<'a> {
    task.id(pod)
        .args(["/pause"])
        .annotation("io.kubernetes.cri.container-type", "sandbox")
        .annotation("io.kubernetes.cri.sandbox-id", pod)
}

/// The answer with which a call failed.
///
/// # Errors
/// When it did not fail, or failed elsewhere than in containerd.
pub fn refusal<T>(result: Result<T>) -> Result<Status> {
    let error = result
        .err()
        .context("a call that should fail has succeeded")?;
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Status>().cloned())
        .with_context(|| format!("an error that is not containerd's: {error:#}"))
}

/// Asserts that a refusal has this code and one line, which names these things.
pub fn expect(status: &Status, code: Code, names: &[&str]) {
    let message = status.message();
    assert_eq!(status.code(), code, "{message}");
    assert!(!message.contains('\n'), "more than a line: {message:?}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in {message:?}");
    }
}
