use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Containerd, Cri, Registry, guest, image};

use crate::screen::{Screen, milliseconds};

/// How often the warm start is measured.
const WARM: usize = 20;

/// Tells the whole story and takes everything down again. Returns the tag that all of it carried.
pub(crate) async fn tell(screen: &mut Screen) -> Result<String> {
    // A store of our own, so that the first start is a cold one, and the node's is left alone.
    let node = tempfile::Builder::new()
        .prefix("sampan-demo-")
        .tempdir()
        .context("make a directory")?;
    let run = node.path().join("run");
    let config = node.path().join("config.toml");
    fs::write(
        &config,
        format!(
            "run = {run:?}\n[store]\npath = {:?}\n",
            node.path().join("store")
        ),
    )
    .context("write the node's configuration")?;

    screen.chapter("A registry and a containerd of their own");
    let registry = Registry::start()?;
    screen.line(format_args!(
        "docker-registry listens on {}",
        registry.address()
    ));
    let containerd = Containerd::builder()
        .registry(&registry)
        .shim_dir(harness::built_dir()?)
        .env("SAMPAN_CONFIG", &config)
        .start()
        .await?;
    let tag = containerd.scratch().tag().to_owned();
    let version = containerd.ctr("default", &["version"]).await?;
    let version = version
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("Version:"))
        .unwrap_or_default();
    screen.line(format_args!(
        "containerd {} with the runtime {} is up",
        version.trim(),
        harness::runtime()
    ));

    let ending = chapters(screen, &registry, &containerd).await;
    if ending.is_err() {
        screen.line("it failed; the end of containerd's log:");
        let log = containerd.log();
        let lines: Vec<&str> = log.lines().collect();
        screen.block(&lines[lines.len().saturating_sub(25)..].join("\n"));
    }
    ending?;

    screen.chapter("What is left");
    let began = Instant::now();
    containerd.assert_clean().await?;
    let left = if run.exists() {
        fs::read_dir(&run)
            .context("list the run directory")?
            .count()
    } else {
        0
    };
    ensure!(left == 0, "{left} entries are left in {}", run.display());
    screen.line(format_args!(
        "no process, mount, cgroup, socket or file of a container ({} after the last one)",
        milliseconds(began.elapsed())
    ));
    Ok(tag)
}

async fn chapters(screen: &mut Screen, registry: &Registry, containerd: &Containerd) -> Result<()> {
    screen.chapter("Wasm artifacts go to the registry");
    let mut references = Vec::new();
    for (name, os) in [
        ("probe", "wasip1"),
        ("hello", "wasip1"),
        ("http-p2", "wasip2"),
    ] {
        let wasm = guest(&format!("{name}.wasm"))?;
        let size = wasm.len();
        let artifact = image::cncf(wasm, os);
        let reference = registry.push(&format!("{name}:v1"), &artifact).await?;
        screen.line(format_args!(
            "pushed {reference} ({} kB, CNCF artifact, {os})",
            size / 1000
        ));
        references.push(reference);
    }
    let [probe, hello, http] = references.as_slice() else {
        unreachable!("three were pushed")
    };
    let cri = containerd.cri().await?;
    for reference in &references {
        let began = Instant::now();
        cri.pull(reference).await?;
        screen.line(format_args!(
            "CRI pulled {reference} by its default path in {}",
            milliseconds(began.elapsed())
        ));
    }

    screen.chapter("A pod with the handler `sampan`: arguments, environment, volumes, exit code");
    grants(screen, containerd, &cri, probe).await?;

    screen.chapter("An HTTP server in a pod");
    serve(screen, &cri, http).await?;

    screen.chapter("The time from `task create` to the first byte on stdout");
    times(screen, containerd, hello).await?;

    screen.chapter("The same by `ctr`: an image with the module as a file");
    by_ctr(screen, registry, containerd).await
}

async fn grants(
    screen: &mut Screen,
    containerd: &Containerd,
    cri: &Cri<'_>,
    probe: &str,
) -> Result<()> {
    let volume = containerd.scratch().dir().join("volume");
    fs::create_dir(&volume).context("make a volume")?;
    fs::write(volume.join("greeting"), "hello from the volume\n").context("fill the volume")?;

    let began = Instant::now();
    let pod = cri.pod("sampan").run().await?;
    screen.line(format_args!(
        "the pod runs after {}",
        milliseconds(began.elapsed())
    ));
    for (name, command, expected) in [
        ("environment", vec!["/", "env"], 0),
        ("volume", vec!["/", "cat", "/data/greeting"], 0),
        (
            "read-only",
            vec!["/", "write", "/data/greeting", "changed"],
            1,
        ),
        ("host", vec!["/", "ls", "/"], 0),
        ("exit-code", vec!["/", "exit", "42"], 42),
        ("trap", vec!["/", "trap"], 121),
    ] {
        let began = Instant::now();
        let container = pod
            .container(name, probe)
            .command(command.iter().copied())
            .env("WHO", "demo")
            .mount(&volume, "/data", true)
            .create()
            .await?;
        container.start().await?;
        let exit = container.wait().await?;
        let took = milliseconds(began.elapsed());
        screen.line(format_args!(
            "`probe {}` exited {} (create to exited by CRI: {took})",
            command[1..].join(" "),
            exit.exit_code
        ));
        let logs = container.logs()?;
        screen.block(&logs.stdout);
        screen.block(&logs.stderr);
        ensure!(
            exit.exit_code == expected,
            "{name} exited {}, not {expected}",
            exit.exit_code
        );
        container.remove().await?;
    }
    let text = fs::read_to_string(volume.join("greeting")).context("read the volume")?;
    ensure!(
        text == "hello from the volume\n",
        "the read-only volume was changed"
    );
    pod.remove().await?;
    Ok(())
}

async fn serve(screen: &mut Screen, cri: &Cri<'_>, http: &str) -> Result<()> {
    let pod = cri.pod("sampan").run().await?;
    let address = pod.address().await?.context("a pod has an address")?;
    let container = pod
        .container("server", http)
        .command(["/"])
        .env("WHO", "demo")
        .create()
        .await?;
    let began = Instant::now();
    container.start().await?;
    let answer = harness::until("an HTTP answer", Duration::from_secs(20), async || {
        Ok(get(address, "/").await.ok())
    })
    .await?;
    screen.line(format_args!(
        "http://{address}:8080/ answers {} after start:",
        milliseconds(began.elapsed())
    ));
    screen.block(&answer);
    screen.line("http://.../env, a request sees the grants of the container:");
    screen.block(&get(address, "/env").await?);
    let began = Instant::now();
    container.stop(10).await?;
    let exit = container.wait().await?;
    screen.line(format_args!(
        "stopped: exited {} after {}",
        exit.exit_code,
        milliseconds(began.elapsed())
    ));
    pod.remove().await?;
    Ok(())
}

async fn times(screen: &mut Screen, containerd: &Containerd, hello: &str) -> Result<()> {
    let once = async || {
        let output = containerd
            .task(hello)
            .namespace("k8s.io")
            .args(["/", "demo"])
            .run()
            .await?;
        ensure!(
            output.status == 0,
            "hello exited {}: {}",
            output.status,
            output.stderr()
        );
        let first = output.first_byte.context("hello wrote nothing")?;
        Ok::<_, anyhow::Error>((first, output.stdout()))
    };
    let (cold, text) = once().await?;
    screen.block(&text);
    screen.line(format_args!(
        "cold (validated, compiled, stored): {}",
        milliseconds(cold)
    ));
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(once().await?.0);
    }
    warm.sort_unstable();
    screen.line(format_args!(
        "warm ({WARM} times): median {}, fastest {}, slowest {}",
        milliseconds(warm[WARM / 2]),
        milliseconds(warm[0]),
        milliseconds(warm[WARM - 1])
    ));
    Ok(())
}

async fn by_ctr(screen: &mut Screen, registry: &Registry, containerd: &Containerd) -> Result<()> {
    let content = image::Rootfs::new()
        .file("hello.wasm", guest("hello.wasm")?)
        .entrypoint(["/hello.wasm"])
        .build()?;
    let reference = registry.push("hello-file:v1", &content).await?;
    containerd
        .ctr("default", &["images", "pull", "--plain-http", &reference])
        .await?;
    screen.line(format_args!(
        "ctr pulled {reference} (a normal image with one tar layer)"
    ));
    let arguments = [
        "run",
        "--rm",
        "--runtime",
        harness::runtime(),
        "--env",
        "WHO=ctr",
        &reference,
        "demo",
        "/hello.wasm",
        "by",
        "ctr",
    ];
    screen.line(format_args!("ctr {}", arguments.join(" ")));
    let output = containerd.ctr("default", &arguments).await?;
    screen.block(&output);
    ensure!(
        output.contains("hello from hello"),
        "ctr showed another output"
    );
    Ok(())
}

/// What the server at the pod's address answers.
async fn get(address: IpAddr, path: &str) -> Result<String> {
    let answer = harness::get((address, 8080).into(), path).await?;
    ensure!(
        answer.status == 200,
        "{path} is answered with {}",
        answer.status
    );
    Ok(answer.text())
}
