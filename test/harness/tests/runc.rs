//! The harness itself: a native container runs with runc's shim, through the Task API and through CRI, on both containerd
//! releases, pulled from the private registry, and nothing is left afterwards.
//!
//! The same suite that tests our shim is proven here against another one.
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::time::Duration;

use anyhow::Result;
use harness::{Containerd, RUNC, Registry, Stdio, Version, image};

/// Whether this machine can run these tests; says why not.
fn able() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: containerd needs root");
        return false;
    }
    if let Err(error) = harness::Tools::locate() {
        eprintln!("skipped: {error}");
        return false;
    }
    true
}

async fn tasks(version: Version) -> Result<()> {
    if !able() {
        return Ok(());
    }
    let containerd = Containerd::builder()
        .version(version)
        .without_cri()
        .start()
        .await?;
    let busybox = "example.test/busybox:v1";
    containerd.import(busybox, &image::busybox()?).await?;

    // Output, environment, exit status, events in order.
    let mut events = containerd.events().await?;
    // runc keeps its state in one place for all containerds.
    let id = harness::unique();
    let builder = containerd
        .task(busybox)
        .runtime(RUNC)
        .id(&id)
        .env("WHO", "harness");
    let output = builder
        .args(["sh", "-c", "echo hello $WHO; echo bad >&2; exit 42"])
        .run()
        .await?;
    assert_eq!(
        (output.status, output.stdout(), output.stderr()),
        (42, "hello harness\n".into(), "bad\n".into())
    );
    assert!(output.first_byte.is_some());
    // Not up to /tasks/delete: runc's shim of 2.3 may end before it has sent that one, which shows under load.
    let topics = events
        .topics_until(&id, "/tasks/exit", Duration::from_secs(10))
        .await?;
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit"]);

    // Standard input to its end.
    let mut task = containerd
        .task(busybox)
        .runtime(RUNC)
        .stdin(Stdio::Fifo)
        .args(["cat"])
        .create()
        .await?;
    task.start().await?;
    task.write_stdin(b"over stdin").await?;
    task.stdout_contains("over stdin").await?;
    task.close_stdin().await?;
    assert_eq!(task.wait().await?, 0);
    assert_eq!(task.delete().await?, 0);
    assert_eq!(task.output(0).await.stdout(), "over stdin");

    // Signals, a read-only mount, and what is seen while it runs.
    let volume = containerd.scratch().dir().join("volume");
    std::fs::create_dir(&volume)?;
    let script = "touch /volume/x || echo refused; trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let builder = containerd
        .task(busybox)
        .runtime(RUNC)
        .mount(&volume, "/volume", ["ro"]);
    let mut task = builder.args(["sh", "-c", script]).create().await?;
    assert_eq!(task.start().await?, task.pid());
    task.stdout_contains("ready").await?;
    assert!(task.pids().await?.contains(&task.pid()));
    assert!(
        !containerd.leftovers().is_empty(),
        "a running task must be seen"
    );
    task.kill(15).await?;
    assert_eq!(task.wait().await?, 3);
    task.delete().await?;
    assert!(task.output(3).await.stdout().contains("refused\n"));

    // A wrong command fails in create or start and leaves nothing.
    let error = containerd
        .task(busybox)
        .runtime(RUNC)
        .args(["/missing"])
        .create()
        .await
        .expect_err("no such file");
    assert!(format!("{error:#}").contains("/missing"), "{error:#}");
    containerd.assert_clean().await
}

async fn pods(version: Version) -> Result<()> {
    if !able() {
        return Ok(());
    }
    let registry = Registry::start()?;
    let mut containerd = Containerd::builder()
        .version(version)
        .registry(&registry)
        .start()
        .await?;
    let busybox = registry.push("busybox:v1", &image::busybox()?).await?;
    let cri = containerd.cri().await?;
    cri.pull(&busybox).await?;

    let pod = cri
        .pod("runc")
        .annotation("sampan.dev/test", "yes")
        .run()
        .await?;
    let address = pod.address().await?.expect("a pod has an address");
    let volume = containerd.scratch().dir().join("volume");
    std::fs::create_dir(&volume)?;
    std::fs::write(volume.join("file"), "from the volume")?;
    let container = pod
        .container("once", &busybox)
        .command(["sh", "-c"])
        .args(["cat /volume/file; echo; echo $WHO; id -u; ip -4 addr show eth0; exit 7"])
        .env("WHO", "harness")
        .user(1000, 1000)
        .mount(&volume, "/volume", true)
        .create()
        .await?;
    container.start().await?;
    let exit = container.wait().await?;
    assert_eq!(exit.exit_code, 7);
    let logs = container.logs()?;
    assert!(
        logs.stdout.starts_with("from the volume\nharness\n1000\n"),
        "{logs:?}"
    );
    assert!(logs.stdout.contains(&address.to_string()), "{logs:?}");

    let server = pod
        .container("server", &busybox)
        .command([
            "sh",
            "-c",
            "echo ready; while :; do echo over the bridge | nc -l -p 8080; done",
        ])
        .create()
        .await?;
    server.start().await?;
    server.stdout_contains("ready").await?;
    let over = harness::until("the pod's server", Duration::from_secs(10), async || {
        let Ok(stream) = tokio::net::TcpStream::connect((address, 8080)).await else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut reader = tokio::io::BufReader::new(stream);
        tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut text).await?;
        Ok(Some(text))
    })
    .await?;
    assert_eq!(over, "over the bridge\n");
    assert_eq!(server.exec(["echo", "exec"]).await?.stdout, b"exec\n");
    assert!(
        containerd
            .crictl(&["ps", "-q"])
            .await?
            .contains(server.id())
    );

    // containerd is killed and comes back: the container still runs and is its own.
    let (pod_id, server_id) = (pod.id().to_owned(), server.id().to_owned());
    containerd.kill9()?;
    containerd.restart().await?;
    let running = containerd.crictl(&["ps", "-q"]).await?;
    assert!(running.contains(&server_id), "{running}");
    containerd.crictl(&["stopp", &pod_id]).await?;
    containerd.crictl(&["rmp", &pod_id]).await?;
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_runc_on_2() -> Result<()> {
    tasks(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_runc_on_1_7() -> Result<()> {
    tasks(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_runc_on_2() -> Result<()> {
    pods(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_runc_on_1_7() -> Result<()> {
    pods(Version::V1_7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_containerd_takes_all_with_it() -> Result<()> {
    if !able() {
        return Ok(());
    }
    let containerd = Containerd::builder().start().await?;
    let tag = containerd.scratch().tag().to_owned();
    let dir = containerd.scratch().dir().to_owned();
    containerd
        .import_in("k8s.io", "example.test/busybox:v1", &image::busybox()?)
        .await?;
    let cri = containerd.cri().await?;
    let pod = cri.pod("runc").run().await?;
    assert!(!containerd.leftovers().is_empty());
    drop((pod, cri));
    drop(containerd);
    assert!(!dir.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&tag), "{mounts}");
    assert!(
        !std::path::Path::new("/sys/class/net")
            .join(format!("br{tag}"))
            .exists()
    );
    Ok(())
}
