//! What goes wrong: killed at every step, no room, nothing to write to, a configuration that is wrong already, a
//! containerd that stays away. The node is as before each time, or complete, and the next run repairs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Disk, Version};
use node_tests::{Config, Machine};

/// The points at which the program can be killed.
async fn points(machine: &Machine, operation: &str) -> Result<Vec<String>> {
    let all = machine.node("status")?.with(["--steps"]).succeeds().await?;
    let points: Vec<String> = all
        .lines()
        .filter(|point| point.starts_with(&format!("{operation}:")))
        .map(str::to_owned)
        .collect();
    ensure!(points.len() > 10, "there are steps: {points:?}");
    Ok(points)
}

/// What has to fail so that everything is taken back, for points that lie in that.
fn provoked(point: &str, late: &str) -> String {
    if point.ends_with(":undo") {
        format!("fail:{late},{point}")
    } else {
        point.to_owned()
    }
}

fn configured(machine: &Machine) -> Result<bool> {
    let drop_in = machine.dir().join("etc/containerd/conf.d/sampan.toml");
    Ok(fs::read_to_string(machine.config())?.contains("runtimes.sampan]") || drop_in.exists())
}

/// Killed at each point of an installation; the next one completes it, and taking it away leaves what was.
async fn killed_installations(version: Version, config: Config) -> Result<()> {
    let Some(machine) = Machine::start(version, config).await? else {
        return Ok(());
    };
    let (before, text) = (machine.tree()?, fs::read(machine.config())?);
    for point in points(&machine, "install").await? {
        let result = async {
            let fail_at = provoked(&point, "record");
            machine
                .node("install")?
                .fail_at(&fail_at)
                .is_killed()
                .await?;
            // In the middle of writing there are files beside it, which nobody reads.
            let now = fs::read(machine.config())?;
            ensure!(
                now == text || (configured(&machine)? && now.starts_with(&text)),
                "neither as before nor complete: {}",
                String::from_utf8_lossy(&now)
            );
            // containerd comes up with whatever is there.
            machine.ready().await?;
            machine.node("install")?.succeeds().await?;
            ensure!(machine.handlers().await?.contains(&"sampan".to_owned()));
            ensure!(machine.status().await?["state"] == "installed");
            machine.no_canary().await?;
            machine.node("uninstall")?.succeeds().await?;
            let difference = before.difference(&machine.tree()?);
            ensure!(difference.is_empty(), "{difference}");
            anyhow::Ok(())
        };
        result.await.with_context(|| point.clone())?;
    }
    Ok(())
}

async fn killed_uninstallations(version: Version, config: Config) -> Result<()> {
    let Some(machine) = Machine::start(version, config).await? else {
        return Ok(());
    };
    let before = machine.tree()?;
    for point in points(&machine, "uninstall").await? {
        let result = async {
            machine.node("install")?.succeeds().await?;
            let fail_at = provoked(&point, "answer");
            machine
                .node("uninstall")?
                .fail_at(&fail_at)
                .is_killed()
                .await?;
            machine.ready().await?;
            machine.node("uninstall")?.succeeds().await?;
            ensure!(!machine.handlers().await?.contains(&"sampan".to_owned()));
            let difference = before.difference(&machine.tree()?);
            ensure!(difference.is_empty(), "{difference}");
            machine.no_canary().await
        };
        result.await.with_context(|| point.clone())?;
    }
    Ok(())
}

/// Each step fails after its work: all of it is taken back.
async fn failed_steps(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    for step in [
        "place",
        "switch",
        "configure",
        "restart",
        "answer",
        "canary",
        "record",
    ] {
        let said = machine
            .node("install")?
            .fail_at(&format!("fail:{step}"))
            .fails()
            .await?;
        ensure!(said.contains("rolled back"), "{step}: {said}");
        assert_eq!(
            configuration.difference(&machine.configuration()?),
            "",
            "{step}"
        );
        ensure!(
            !machine.handlers().await?.contains(&"sampan".to_owned()),
            "{step}"
        );
        assert_eq!(machine.status().await?["state"], "absent", "{step}");
        machine.no_canary().await?;
    }
    Ok(())
}

/// No room for the binaries.
async fn full_prefix(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    let starts = machine.starts();
    let disk = Disk::tmpfs(&machine.prefix(), "size=1m")?;
    let said = machine.node("install")?.fails().await?;
    ensure!(
        said.contains("step install:place") && said.contains("No space left"),
        "{said}"
    );
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    assert_eq!(machine.starts(), starts);
    drop(disk);
    machine.node("install")?.succeeds().await?;
    Ok(())
}

/// Room for the binaries and for few pages more: it runs out wherever something is written down.
async fn nearly_full_prefix(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    let mut pages = 0;
    for name in ["containerd-shim-sampan-v1", "sampan-runner"] {
        pages += fs::metadata(machine.payload()?.join(name))?
            .len()
            .div_ceil(4096);
    }
    let (mut failed, mut spare) = (0, 0);
    loop {
        let size = format!("size={}k", (pages + spare) * 4);
        let disk = Disk::tmpfs(&machine.prefix(), &size)?;
        let ended = machine.node("install")?.run().await?;
        if ended.succeeded {
            break;
        }
        failed += 1;
        let context = format!("{spare} pages: {}", ended.stderr);
        ensure!(
            !ended.stderr.contains("could not all be taken back"),
            "{context}"
        );
        ensure!(
            !machine.handlers().await?.contains(&"sampan".to_owned()),
            "{context}"
        );
        assert_eq!(
            configuration.difference(&machine.configuration()?),
            "",
            "{context}"
        );
        machine.no_canary().await.context(context)?;
        drop(disk);
        spare += 1;
    }
    ensure!(
        (3..40).contains(&failed),
        "it fails for want of some pages: {failed}"
    );
    Ok(())
}

/// No room for the configuration, and then just enough for the new one: what was is put back without any.
async fn full_configuration(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let etc = machine.dir().join("etc/containerd");
    let text = fs::read(machine.config())?;
    let disk = Disk::tmpfs(&etc, "size=32k")?;
    fs::create_dir(etc.join("conf.d"))?;
    fs::write(machine.config(), &text)?;
    disk.fill()?;
    let mut freed = 0;
    loop {
        let configuration = machine.configuration()?;
        let install = machine.node("install")?.fail_at("fail:answer");
        let said = install.fails().await?;
        ensure!(said.contains("rolled back"), "{freed} pages: {said}");
        assert_eq!(configuration.difference(&machine.configuration()?), "");
        assert_eq!(fs::read(machine.config())?, text);
        ensure!(
            !machine.handlers().await?.contains(&"sampan".to_owned()),
            "{freed} pages"
        );
        if said.contains("step install:answer") {
            break;
        }
        ensure!(said.contains("step install:configure"), "{said}");
        fs::remove_file(etc.join(format!("filler-{freed}")))?;
        freed += 1;
    }
    ensure!(freed > 0, "there was room at first");
    drop(disk);
    machine.node("install")?.succeeds().await?;
    Ok(())
}

/// A file system that nobody can write to: that of the binaries, then that of the configuration.
async fn read_only(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    let prefix = Disk::tmpfs(&machine.prefix(), "size=64m")?;
    prefix.read_only()?;
    let said = machine.node("install")?.fails().await?;
    ensure!(said.contains("Read-only"), "{said}");
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    drop(prefix);

    let etc = machine.dir().join("etc/containerd");
    let text = fs::read(machine.config())?;
    let disk = Disk::tmpfs(&etc, "size=64k")?;
    fs::write(machine.config(), &text)?;
    disk.read_only()?;
    let said = machine.node("install")?.fails().await?;
    ensure!(
        said.contains("Read-only") && said.contains("rolled back"),
        "{said}"
    );
    assert_eq!(fs::read(machine.config())?, text);
    ensure!(machine.handlers().await?.len() == 1);
    Ok(())
}

/// A configuration that containerd could not start with any more.
async fn invalid(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let good = fs::read_to_string(machine.config())?;
    let starts = machine.starts();
    for (bad, part) in [
        (format!("{good}\n[broken\n"), "parse the configuration"),
        // TOML, and not what containerd takes.
        (
            format!("oom_score = 'much'\n{good}"),
            "containerd does not read",
        ),
        (good.replace("version = ", "version = 4"), "version 4"),
    ] {
        fs::write(machine.config(), &bad)?;
        let configuration = machine.configuration()?;
        let said = machine.node("install")?.fails().await?;
        ensure!(
            said.contains(part) && said.contains("nothing was touched"),
            "{said}"
        );
        assert_eq!(configuration.difference(&machine.configuration()?), "");
    }
    assert_eq!(machine.starts(), starts);
    fs::write(machine.config(), &good)?;
    machine.node("install")?.succeeds().await?;

    // One that others have broken since is not what containerd is to start again with.
    let starts = machine.starts();
    let installed = fs::read_to_string(machine.config())?;
    fs::write(machine.config(), format!("oom_score = 'much'\n{installed}"))?;
    let said = machine.node("uninstall")?.fails().await?;
    ensure!(said.contains("nothing was touched"), "{said}");
    assert_eq!(machine.starts(), starts);
    fs::write(machine.config(), &installed)?;
    machine.node("uninstall")?.succeeds().await?;
    assert_eq!(fs::read_to_string(machine.config())?, good);
    Ok(())
}

/// containerd ends when it was asked to and does not come up with the new configuration.
async fn stays_away(version: Version) -> Result<()> {
    let Some(machine) = Machine::start(version, Config::Plain).await? else {
        return Ok(());
    };
    let configuration = machine.configuration()?;
    machine.refuse(&machine.config(), "runtimes.sampan]");
    let said = machine
        .node("install")?
        .with(["--restart-timeout=3"])
        .fails()
        .await?;
    ensure!(
        said.contains("has not come back") && said.contains("rolled back"),
        "{said}"
    );
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    ensure!(machine.handlers().await?.len() == 1);

    // The same, and the program is killed while it waits: the next run brings containerd back.
    machine
        .node("install")?
        .fail_at("install:restart:after")
        .is_killed()
        .await?;
    ensure!(machine.pid().is_none(), "containerd stays away");
    let said = machine
        .node("install")?
        .with(["--restart-timeout=3"])
        .fails()
        .await?;
    ensure!(said.contains("rolled back"), "{said}");
    ensure!(machine.handlers().await?.len() == 1);
    assert_eq!(configuration.difference(&machine.configuration()?), "");
    machine.accept();
    machine.node("install")?.succeeds().await.map(drop)
}

macro_rules! on_both {
    ($($test:ident: $name:ident $(($($argument:expr),*))?;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_2() -> Result<()> {
                $test(Version::V2 $($(, $argument)*)?).await
            }

            #[tokio::test]
            async fn on_1_7() -> Result<()> {
                $test(Version::V1_7 $($(, $argument)*)?).await
            }
        }
    )*};
}

on_both! {
    killed_installations: an_installation_is_killed(Config::Plain);
    killed_installations: an_installation_with_imports_is_killed(Config::Importing);
    killed_uninstallations: an_uninstallation_is_killed(Config::Plain);
    failed_steps: every_step_fails;
    full_prefix: no_room_for_binaries;
    nearly_full_prefix: no_room_for_what_is_written_down;
    full_configuration: no_room_for_the_configuration;
    read_only: nothing_can_be_written;
    invalid: the_configuration_is_wrong_already;
    stays_away: containerd_stays_away;
}
