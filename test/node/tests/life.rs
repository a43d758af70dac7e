//! Installed, used, upgraded, taken away.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Version, get, until};
use node_tests::{Config, Machine};

/// A copy of the binaries with other bytes at the end of one, so that they are another version.
fn another(
    machine: &Machine,
    runner: impl FnOnce(&Path) -> Result<()>,
) -> Result<std::path::PathBuf> {
    let dir = machine.dir().join("payload-2");
    fs::create_dir_all(&dir)?;
    for name in ["containerd-shim-sampan-v1", "sampan-runner"] {
        fs::copy(machine.payload()?.join(name), dir.join(name))?;
    }
    runner(&dir.join("sampan-runner"))?;
    Ok(dir)
}

fn longer(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    Ok(file.write_all(b"a newer one")?)
}

async fn whole_life(version: Version, config: Config, handler: &str) -> Result<()> {
    let Some(machine) = Machine::start(version, config).await? else {
        return Ok(());
    };
    let before = machine.tree()?;
    let starts = machine.starts();
    let found = machine.node("detect")?.succeeds().await?;
    let found: serde_json::Value = serde_json::from_str(&found)?;
    assert_eq!(found["config"].as_str(), machine.config().to_str());
    assert_eq!(found["pid"].as_u64(), machine.pid().map(u64::from));
    assert_eq!(machine.status().await?["state"], "absent");

    machine.node("install")?.succeeds().await?;
    let handlers = machine.handlers().await?;
    for ours in ["sampan", "sampan-dense"] {
        assert!(handlers.contains(&ours.to_owned()), "{handlers:?}");
    }
    assert_eq!(
        machine.starts(),
        starts + 1,
        "containerd was restarted once"
    );
    let status = machine.status().await?;
    assert_eq!(status["state"], "installed");
    // containerd 1.7 replaces a plugin's whole section by that of a drop-in, so there it takes a block.
    let kind = match (version, config) {
        (Version::V2, Config::Importing) => "drop-in",
        _ => "block",
    };
    assert_eq!(status["record"]["config"]["kind"], kind);
    machine.no_canary().await?;

    // Again: nothing is restarted, nothing is written but what is written down.
    let installed = machine.configuration()?;
    machine.node("install")?.succeeds().await?;
    assert_eq!(machine.starts(), starts + 1);
    assert_eq!(installed.difference(&machine.configuration()?), "");

    let (pod, container) = machine.pod(handler, "lives").await?;
    assert_eq!(machine.state(&container).await?, "CONTAINER_RUNNING");

    // An upgrade leaves it alone.
    let newer = another(&machine, longer)?;
    machine.node_with("install", &newer).succeeds().await?;
    assert_eq!(machine.starts(), starts + 1);
    assert_eq!(machine.state(&container).await?, "CONTAINER_RUNNING");
    let hash = |status: &serde_json::Value| status["record"]["hash"].as_str().map(str::to_owned);
    let first = hash(&status).context("a hash")?;
    let second = hash(&machine.status().await?).context("a hash")?;
    assert_ne!(first, second);
    assert!(
        machine.prefix().join(&first).exists(),
        "the pod executes it still"
    );
    // The way back is the same.
    machine.node("install")?.succeeds().await?;
    assert_eq!(hash(&machine.status().await?), Some(first.clone()));
    machine.node_with("install", &newer).succeeds().await?;

    // It is a reason to stay.
    let said = machine.node("uninstall")?.fails().await?;
    assert!(
        said.contains("pods of this runtime run still: test/lives"),
        "{said}"
    );
    assert_eq!(machine.status().await?["state"], "installed");
    assert_eq!(machine.state(&container).await?, "CONTAINER_RUNNING");

    machine.remove_pod(&pod).await?;
    machine.node_with("install", &newer).succeeds().await?;
    let gone = async || Ok((!machine.prefix().join(&first).exists()).then_some(()));
    if until("the old binaries to go", Duration::from_secs(1), gone)
        .await
        .is_err()
    {
        // The supervisor may have lived a moment longer than its pod.
        machine.node_with("install", &newer).succeeds().await?;
        assert!(!machine.prefix().join(&first).exists());
    }

    machine.node("uninstall")?.succeeds().await?;
    assert!(!machine.handlers().await?.contains(&"sampan".to_owned()));
    assert_eq!(before.difference(&machine.tree()?), "");
    // And once more is nothing.
    machine.node("uninstall")?.succeeds().await?;
    assert_eq!(before.difference(&machine.tree()?), "");
    machine.no_canary().await
}

/// An upgrade whose runner does not run.
async fn bad_upgrade(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    machine.node("install")?.succeeds().await?;
    let before = machine.status().await?;
    let configuration = machine.configuration()?;
    let bad = another(&machine, |runner| {
        let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo 'sampan-runner 9.9.9 (9.9.9-0000000000000000)' && exit 0\nexit 1\n";
        Ok(fs::write(runner, script)?)
    })?;
    let said = machine.node_with("install", &bad).fails().await?;
    assert!(
        said.contains("step install:canary")
            && said.contains("rolled back")
            && said.contains("works"),
        "{said}"
    );
    let after = machine.status().await?;
    assert_eq!(before["record"], after["record"]);
    assert_eq!(before["current"], after["current"]);
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    machine.no_canary().await?;
    let (pod, _) = machine.pod("sampan", "after").await?;
    machine.remove_pod(&pod).await
}

/// `run` tries again what has failed, and says meanwhile why.
async fn tried_again(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    machine.refuse(&machine.config(), "runtimes.sampan]");
    let program = machine.node("run")?.with(["--restart-timeout=2"]);
    let (mut running, address) = program.started().await?;
    let failed = async || {
        let answer = get(address, "/readyz").await?;
        let told = answer.status == 503 && answer.text().contains("has not come back");
        Ok(told.then_some(()))
    };
    until("the reason", Duration::from_secs(60), failed).await?;
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    machine.accept();
    let ready = async || Ok((get(address, "/readyz").await?.status == 200).then_some(()));
    until("readiness", Duration::from_secs(60), ready).await?;
    let pid = running.id().context("it runs")?;
    harness::process::signal(pid, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(running.wait().await?.success());
    Ok(())
}

/// `run` repairs what others break, and leaves everything when it ends.
async fn kept(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let program = machine.node("run")?.with(["--check-interval=1"]);
    let (mut running, address) = program.started().await?;
    let ready = async || Ok((get(address, "/readyz").await?.status == 200).then_some(()));
    until("readiness", Duration::from_secs(60), ready).await?;
    assert_eq!(get(address, "/healthz").await?.status, 200);
    let status = machine.status().await?;
    let hash = status["record"]["hash"]
        .as_str()
        .context("a hash")?
        .to_owned();
    let configuration = machine.configuration()?;

    let runner = machine.prefix().join(hash).join("sampan-runner");
    let good = fs::metadata(&runner)?.len();
    fs::remove_file(&runner)?;
    fs::write(&runner, "broken")?;
    let repaired = async || {
        Ok(fs::metadata(&runner)
            .is_ok_and(|meta| meta.len() == good)
            .then_some(()))
    };
    until("the runner's repair", Duration::from_secs(30), repaired).await?;

    let counted = async || {
        let metrics = get(address, "/metrics").await?.text();
        Ok((metrics.contains("sampan_node_drifts_total 1")
            && metrics.contains("sampan_node_ready 1"))
        .then_some(()))
    };
    until(
        "the metrics to tell of it",
        Duration::from_secs(30),
        counted,
    )
    .await?;
    let pid = running.id().context("it runs")?;
    harness::process::signal(pid, nix::sys::signal::Signal::SIGTERM)?;
    ensure!(running.wait().await?.success());
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    assert_eq!(machine.status().await?["state"], "installed");
    Ok(())
}

/// With mounts of its own and the host's root below a directory, as in a pod: containerd's parser runs in containerd's
/// mounts, and paths are the host's.
async fn in_a_pod(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Importing).await? else {
        return Ok(());
    };
    let host = machine.dir().join("host");
    fs::create_dir(&host)?;
    // What is absolute on the host stays on the host.
    fs::rename(machine.dir().join("opt"), machine.dir().join("real-opt"))?;
    std::os::unix::fs::symlink(machine.dir().join("real-opt"), machine.dir().join("opt"))?;
    let before = machine.tree()?;
    let inside = |command: &str| anyhow::Ok(machine.node(command)?.in_pod(&host));
    inside("install")?.succeeds().await?;
    assert!(machine.handlers().await?.contains(&"sampan".to_owned()));
    assert!(
        machine
            .dir()
            .join("real-opt/sampan/current/sampan-runner")
            .exists()
    );
    assert_eq!(machine.status().await?["state"], "installed");
    let (pod, _) = machine.pod("sampan-dense", "inside").await?;
    let said = inside("uninstall")?.fails().await?;
    assert!(said.contains("test/inside"), "{said}");
    inside("uninstall")?.with(["--force"]).succeeds().await?;
    assert_eq!(before.difference(&machine.tree()?), "");
    let pods = machine.crictl(&["pods", "-q"]).await?;
    assert!(!pods.contains(&pod[..10]), "it was ended: {pods}");
    machine.no_canary().await
}

#[tokio::test]
async fn as_in_a_pod_on_2() -> Result<()> {
    in_a_pod(Version::V2).await
}

#[tokio::test]
async fn as_in_a_pod_on_1_7() -> Result<()> {
    in_a_pod(Version::V1_7).await
}

#[tokio::test]
async fn a_whole_life_on_2() -> Result<()> {
    whole_life(Version::V2, Config::Plain, "sampan").await
}

#[tokio::test]
async fn a_whole_life_with_imports_on_2() -> Result<()> {
    whole_life(Version::V2, Config::Importing, "sampan-dense").await
}

#[tokio::test]
async fn a_whole_life_with_an_older_configuration_on_2() -> Result<()> {
    whole_life(Version::V2, Config::Older, "sampan").await
}

/// The configuration is a link, as where it comes from a store of configurations.
#[tokio::test]
async fn a_link_stays_a_link() -> Result<()> {
    let Some(machine) = Machine::start(Version::V2, Config::Plain).await? else {
        return Ok(());
    };
    let real = machine.dir().join("etc/real.toml");
    fs::rename(machine.config(), &real)?;
    std::os::unix::fs::symlink("../real.toml", machine.config())?;
    let before = machine.tree()?;
    machine.node("install")?.succeeds().await?;
    ensure!(fs::symlink_metadata(machine.config())?.is_symlink());
    ensure!(fs::read_to_string(&real)?.contains("runtimes.sampan]"));
    machine.node("uninstall")?.succeeds().await?;
    assert_eq!(before.difference(&machine.tree()?), "");
    Ok(())
}

#[tokio::test]
async fn a_whole_life_on_1_7() -> Result<()> {
    whole_life(Version::V1_7, Config::Plain, "sampan-dense").await
}

#[tokio::test]
async fn a_whole_life_with_imports_on_1_7() -> Result<()> {
    whole_life(Version::V1_7, Config::Importing, "sampan").await
}

#[tokio::test]
async fn an_upgrade_that_does_not_work_on_2() -> Result<()> {
    bad_upgrade(Version::V2).await
}

#[tokio::test]
async fn an_upgrade_that_does_not_work_on_1_7() -> Result<()> {
    bad_upgrade(Version::V1_7).await
}

#[tokio::test]
async fn what_failed_is_tried_again_on_2() -> Result<()> {
    tried_again(Version::V2).await
}

#[tokio::test]
async fn what_is_broken_is_repaired_on_1_7() -> Result<()> {
    kept(Version::V1_7).await
}

#[tokio::test]
async fn what_is_broken_is_repaired_on_2() -> Result<()> {
    kept(Version::V2).await
}
