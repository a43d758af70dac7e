//! The tool on a node: what it says of a real containerd, and of the guests there.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::{image, until};
use serde_json::Value;
use std::time::Duration;
use tool_tests::Tool;

const POD_IMAGE: &str = "example.test/probe:v1";

/// A containerd that works, and then one thing after the other is wrong.
pub(crate) async fn is_examined() -> Result<()> {
    let Some(mut containerd) = crate::with_cri().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    let socket = containerd.socket();
    let socket = socket.to_str().context("a path in text")?.to_owned();
    let examine = |more: &[&str]| -> Result<(Value, Option<i32>)> {
        let mut line = vec!["doctor", "--address", &socket];
        line.extend(more);
        tool.json(&line)
    };
    let (found, code) = examine(&[])?;
    ensure!(code == Some(0) && found["works"] == true, "{found:#}");
    for (about, words) in [
        ("containerd", "at"),
        ("configuration", "sampan.toml is read"),
        ("handler", "io.containerd.sampan.v1 executes"),
        ("runner", "sampan-runner"),
        ("cgroups", "memory"),
        ("kernel", "seccomp"),
        ("store", "is not there yet"),
        ("canary", "has run"),
    ] {
        ensure!(
            said(&found, about, words).is_some(),
            "nothing of {about} and {words:?}: {found:#}"
        );
    }
    let (found, _) = examine(&["--no-canary"])?;
    ensure!(said(&found, "store", ": 1 programs").is_some(), "{found:#}");
    // What it ran, it has removed.
    let left = containerd
        .ctr("sampan-doctor", &["containers", "list", "--quiet"])
        .await?;
    ensure!(left.trim().is_empty(), "left: {left}");
    let namespaces = containerd
        .ctr("default", &["namespaces", "list", "--quiet"])
        .await?;
    ensure!(!namespaces.contains("sampan-doctor"), "left: {namespaces}");
    // On cgroup v1 one below each controller. Other canaries of the same moment have names of their own.
    for controller in ["", "pids", "memory", "systemd"] {
        let left = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join("sampan-doctor");
        ensure!(!left.exists(), "left: {}", left.display());
    }
    containerd.assert_clean().await?;

    // The canary's program in the store of this node, spoilt.
    let store = containerd.sampan_store();
    let place = store.to_str().context("a path in text")?.to_owned();
    let (listed, _) = tool.json(&["store", "ls", "--store", &place])?;
    let program = &listed["programs"][0];
    let hex = program["digest"]
        .as_str()
        .context("a digest")?
        .trim_start_matches("sha256:")
        .to_owned();
    let engine = program["engine"].as_str().context("an engine")?;
    let path = store
        .join("artifacts")
        .join(engine)
        .join(format!("{hex}.cwasm"));
    std::fs::remove_file(&path)?;
    std::fs::write(&path, b"spoilt")?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o444))?;
    let (found, code) = examine(&["--no-canary"])?;
    ensure!(code == Some(1), "{found:#}");
    let finding = said(&found, "store", "not sound").with_context(|| format!("{found:#}"))?;
    ensure!(
        finding["fix"] == "sampan store verify --repair",
        "{found:#}"
    );
    let (_, code) = tool.json(&["store", "verify", "--repair", "--store", &place])?;
    ensure!(code == Some(0));
    let (found, code) = examine(&["--no-canary"])?;
    ensure!(code == Some(0), "{found:#}");

    // Others may write the store.
    std::fs::set_permissions(&store, Permissions::from_mode(0o777))?;
    let (found, code) = examine(&[])?;
    ensure!(code == Some(1), "{found:#}");
    ensure!(
        said(&found, "store", "others may write it").is_some(),
        "{found:#}"
    );
    ensure!(
        said(&found, "canary", "others may write it").is_some(),
        "{found:#}"
    );
    std::fs::set_permissions(&store, Permissions::from_mode(0o700))?;

    // A node's configuration with a mistake.
    let config = containerd.scratch().dir().join("sampan.toml");
    let sound = std::fs::read(&config)?;
    std::fs::write(&config, "nonsense = 1\n")?;
    let (found, code) = examine(&["--no-canary"])?;
    ensure!(code == Some(1), "{found:#}");
    ensure!(
        said(&found, "configuration", "nonsense").is_some(),
        "{found:#}"
    );
    std::fs::write(&config, sound)?;

    containerd.assert_clean().await?;
    containerd.stop().await?;
    let (found, code) = examine(&[])?;
    ensure!(code == Some(1), "{found:#}");
    ensure!(
        said(&found, "containerd", "").is_some_and(|finding| finding["state"] == "fault"),
        "{found:#}"
    );
    Ok(())
}

/// A finding about this with these words.
fn said<'a>(found: &'a Value, about: &str, words: &str) -> Option<&'a Value> {
    found["findings"].as_array()?.iter().find(|finding| {
        finding["about"] == about
            && finding["what"]
                .as_str()
                .is_some_and(|what| what.contains(words))
    })
}

/// Guests of pods and without, by their names, with what they use.
pub(crate) async fn guests_are_shown() -> Result<()> {
    let Some(containerd) = crate::with_cri().await? else {
        return Ok(());
    };
    let cri = containerd.cri().await?;
    let probe = image::bytecode_alliance(harness::guest("probe.wasm")?);
    containerd.import_in("k8s.io", POD_IMAGE, &probe).await?;
    let config = containerd.scratch().dir().join("sampan.toml");
    let config = config.to_str().context("a path in text")?.to_owned();
    let tool = Tool::new()?;
    let top = |more: &[&str]| -> Result<Vec<Value>> {
        let mut line = vec!["top", "--interval", "1", "--node-config", &config];
        line.extend(more);
        let (table, code) = tool.json(&line)?;
        ensure!(code == Some(0), "{table:#}");
        table["guests"]
            .as_array()
            .cloned()
            .context("a list of guests")
    };
    ensure!(top(&["--all"])?.is_empty());

    let pod = cri.pod("sampan").run().await?;
    let name = pod
        .config()
        .metadata
        .as_ref()
        .map(|metadata| metadata.name.clone());
    let name = name.context("a pod has a name")?;
    let mut started = Vec::new();
    for (container, args) in [
        ("spins", &["/", "spin"][..]),
        ("sleeps", &["/", "sleep", "600000"]),
    ] {
        let created = pod
            .container(container, POD_IMAGE)
            .command(args.iter().copied())
            .config(|config| {
                if let Some(linux) = config.linux.as_mut() {
                    linux
                        .resources
                        .get_or_insert_default()
                        .memory_limit_in_bytes = 64 << 20;
                }
            })
            .create()
            .await?;
        created.start().await?;
        started.push(created);
    }
    // A guest that has begun to spin has used a processor for a while by then.
    let mut guests = Vec::new();
    until("the guest to spin", Duration::from_secs(30), async || {
        guests = top(&[])?;
        let cpu = guests.first().and_then(|guest| guest["cpu"].as_f64());
        Ok(cpu.is_some_and(|cpu| cpu > 0.2).then_some(()))
    })
    .await?;
    ensure!(guests.len() == 2, "{guests:#?}");
    for (guest, container) in guests.iter().zip(["spins", "sleeps"]) {
        ensure!(
            guest["namespace"] == "test"
                && guest["pod"] == name.as_str()
                && guest["container"] == container,
            "{guest:#}"
        );
        ensure!(
            guest["kind"] == "wasm" && guest["memoryLimit"] == 64 << 20,
            "{guest:#}"
        );
        ensure!(
            guest["memory"]
                .as_u64()
                .is_some_and(|memory| memory > 100_000),
            "{guest:#}"
        );
    }
    let pids: Vec<_> = guests.iter().map(|guest| guest["pid"].clone()).collect();
    for (created, pid) in started.iter().zip(&pids) {
        ensure!(*pid == created.pid().await?, "{guests:#?}");
    }
    let by_name = top(&["--sort", "name"])?;
    ensure!(by_name[0]["container"] == "sleeps", "{by_name:#?}");
    let all = top(&["--all"])?;
    ensure!(
        all.len() == 3 && all.iter().any(|guest| guest["kind"] == "pod"),
        "{all:#?}"
    );

    started[0].stop(0).await?;
    let fewer = top(&[])?;
    ensure!(
        fewer.len() == 1 && fewer[0]["container"] == "sleeps",
        "{fewer:#?}"
    );
    pod.remove().await?;
    ensure!(top(&["--all"])?.is_empty());
    containerd.assert_clean().await
}
