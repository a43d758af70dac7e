//! The story with a containerd that is there already, told by `ctr` alone: its configuration is not ours to change, so
//! the shim is named by its path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::{Registry, free_address, guest, image};
use tokio::process::{Child, Command};

use crate::screen::{Screen, milliseconds};

/// How often the warm start is measured.
const WARM: usize = 10;
/// Where the shim of a containerd with nothing of ours in its environment keeps things.
const NODE: [&str; 2] = ["/var/lib/sampan", "/run/sampan"];

/// Tells it, and takes away what it brought. Returns the tag that all of it carried.
pub(crate) async fn tell(screen: &mut Screen, address: &str) -> Result<String> {
    let tag = format!("demo-{}", &harness::unique()[..7]);
    let before: Vec<PathBuf> = NODE
        .map(PathBuf::from)
        .into_iter()
        .filter(|path| !path.exists())
        .collect();
    let given = Given {
        ctr: tools::Tools::locate()?.containerd_2.ctr,
        address: address.to_owned(),
        namespace: tag.clone(),
        shim: harness::built_dir()?.join("containerd-shim-sampan-v1"),
    };
    screen.chapter(&format!("The containerd at {address} (CONTAINERD_ADDRESS)"));
    let version = given.ctr(&["version"]).await?;
    let version = version
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("Version:"));
    screen.line(format_args!(
        "containerd {} answers",
        version.unwrap_or("of an unknown version").trim()
    ));
    let registry = Registry::start()?;
    screen.line(format_args!(
        "docker-registry listens on {}",
        registry.address()
    ));

    let told = chapters(screen, &given, &registry).await;

    screen.chapter("What is left");
    let began = Instant::now();
    given.forget().await?;
    // Its directories are left if they were there before: they are the node's then.
    for directory in before {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", directory.display()));
            }
            _ => {}
        }
    }
    screen.line(format_args!(
        "no container, image or snapshot in the namespace, and no namespace ({} after the last one)",
        milliseconds(began.elapsed())
    ));
    told?;
    Ok(tag)
}

async fn chapters(screen: &mut Screen, given: &Given, registry: &Registry) -> Result<()> {
    screen.chapter("Images go to the registry, and by `ctr` into containerd");
    // Ordinary images with the module as a file: `ctr` of 2.3 pulls none for the platform wasi/wasm, and none without a
    // file system can be run by it.
    let mut references = Vec::new();
    for name in ["probe", "hello", "http-p2"] {
        let file = format!("{name}.wasm");
        let image = image::Rootfs::new()
            .file(&file, guest(&file)?)
            .entrypoint([format!("/{file}").as_str()])
            .build()?;
        let reference = registry.push(&format!("{name}:v1"), &image).await?;
        let began = Instant::now();
        given
            .ctr(&["images", "pull", "--plain-http", &reference])
            .await?;
        screen.line(format_args!(
            "pulled {reference} in {}",
            milliseconds(began.elapsed())
        ));
        references.push(reference);
    }
    let [probe, hello, http] = references.as_slice() else {
        unreachable!("three were pushed")
    };

    screen.chapter("Arguments, environment, volumes, exit code");
    let volume = tempfile::Builder::new()
        .prefix(&given.namespace)
        .tempdir()
        .context("make a volume")?;
    fs::write(volume.path().join("greeting"), "hello from the volume\n")
        .context("fill the volume")?;
    let mount = format!(
        "type=bind,src={},dst=/data,options=rbind:ro",
        volume.path().display()
    );
    for (command, expected) in [
        (vec!["env"], 0),
        (vec!["cat", "/data/greeting"], 0),
        (vec!["write", "/data/greeting", "changed"], 1),
        (vec!["exit", "42"], 42),
        (vec!["trap"], 121),
    ] {
        let mut args = vec![
            "--env",
            "WHO=demo",
            "--mount",
            &mount,
            probe,
            "probe",
            "/probe.wasm",
        ];
        args.extend(&command);
        let began = Instant::now();
        let output = given.run(&args)?.wait_with_output().await?;
        let took = milliseconds(began.elapsed());
        // None is a signal, which `ctr` passes on as a code.
        let code = output.status.code().unwrap_or(-1);
        screen.line(format_args!(
            "`probe {}` exited {code} (`ctr run` in all: {took})",
            command.join(" ")
        ));
        screen.block(&String::from_utf8_lossy(&output.stdout));
        screen.block(&String::from_utf8_lossy(&output.stderr));
        ensure!(
            code == expected,
            "`probe {}` exited {code}, not {expected}",
            command.join(" ")
        );
    }
    ensure!(
        fs::read_to_string(volume.path().join("greeting"))? == "hello from the volume\n",
        "the read-only volume was changed"
    );

    screen.chapter("An HTTP server");
    serve(screen, given, http).await?;

    screen.chapter("The time of `ctr run --rm`, from its start to its end");
    let once = async || {
        let began = Instant::now();
        let output = given
            .run(&[hello, "hello", "/hello.wasm", "demo"])?
            .wait_with_output()
            .await?;
        ensure!(
            output.status.success(),
            "hello failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok::<_, anyhow::Error>(began.elapsed())
    };
    screen.line(format_args!(
        "cold (validated, compiled, stored): {}",
        milliseconds(once().await?)
    ));
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(once().await?);
    }
    warm.sort_unstable();
    screen.line(format_args!(
        "warm ({WARM} times): median {}",
        milliseconds(warm[WARM / 2])
    ));
    Ok(())
}

async fn serve(screen: &mut Screen, given: &Given, http: &str) -> Result<()> {
    // On the node's own network.
    let address = free_address()?;
    let listen = format!("SAMPAN_HTTP_LISTEN={address}");
    let began = Instant::now();
    let server = given.run(&[
        "--net-host",
        "--env",
        &listen,
        http,
        "server",
        "/http-p2.wasm",
    ])?;
    let answer = harness::until("an HTTP answer", Duration::from_secs(20), async || {
        Ok(harness::get(address, "/").await.ok())
    })
    .await?;
    screen.line(format_args!(
        "http://{address}/ answers {} after `ctr run`:",
        milliseconds(began.elapsed())
    ));
    screen.block(&answer.text());
    given
        .ctr(&["tasks", "kill", "--signal", "SIGTERM", "server"])
        .await?;
    let status = server.wait_with_output().await?.status;
    screen.line(format_args!("SIGTERM: {status}"));
    ensure!(status.success(), "the server ended with {status}");
    Ok(())
}

/// A containerd that is not ours, and a namespace in it that is.
struct Given {
    ctr: PathBuf,
    address: String,
    namespace: String,
    shim: PathBuf,
}

impl Given {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.ctr);
        command.args(["--address", &self.address, "--namespace", &self.namespace]);
        command.stdin(Stdio::null());
        command
    }

    async fn ctr(&self, args: &[&str]) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .command()
            .args(args)
            .output()
            .await
            .context("execute ctr")?;
        if !status.success() {
            bail!(
                "ctr {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// `ctr run` with our shim; its exit code is the program's.
    fn run(&self, args: &[&str]) -> Result<Child> {
        let shim: &Path = &self.shim;
        self.command()
            .args(["run", "--rm", "--runtime"])
            .arg(shim)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("execute ctr")
    }

    /// Removes all that the namespace holds, and the namespace.
    async fn forget(&self) -> Result<()> {
        for id in self.ctr(&["tasks", "ls", "-q"]).await?.split_whitespace() {
            self.ctr(&["tasks", "rm", "--force", id]).await?;
        }
        for id in self
            .ctr(&["containers", "ls", "-q"])
            .await?
            .split_whitespace()
        {
            self.ctr(&["containers", "rm", id]).await?;
        }
        for image in self.ctr(&["images", "ls", "-q"]).await?.split_whitespace() {
            self.ctr(&["images", "rm", "--sync", image]).await?;
        }
        self.ctr(&["namespaces", "rm", &self.namespace]).await?;
        // The parent of the containers' cgroups is called like the namespace, and stays with every shim.
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).context("list the cgroups")?.flatten();
        for parent in hierarchies
            .map(|entry| entry.path())
            .chain([root.to_owned()])
        {
            // Where it is not there is nothing to do.
            let _ = fs::remove_dir(parent.join(&self.namespace));
        }
        Ok(())
    }
}
