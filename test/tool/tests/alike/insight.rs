//! What is seen of guests in containers from outside: core dumps that they leave, and where they spend their time.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{Containerd, Output, until};
use serde_json::Value;
use tool_tests::Tool;

use crate::{containerd, layer};

/// Traps three functions deep, with two megabytes of something in its memory.
const TRAPS: &str = r#"(module $shop
    (memory (export "memory") 64)
    (func $fill (local $at i32)
        (loop $more
            (i32.store (local.get $at) (i32.const 0x5a5a5a5a))
            (local.set $at (i32.add (local.get $at) (i32.const 4)))
            (br_if $more (i32.lt_u (local.get $at) (i32.const 0x200000)))))
    (func $charge_card unreachable)
    (func $checkout (call $charge_card))
    (func (export "_start") (call $fill) (call $checkout)))"#;

/// Computes for ever, nearly always in one function.
const SPINS: &str = r#"(module
    (memory (export "memory") 1)
    (func $hottest_function (param $n i32) (result i32)
        (local $i i32) (local $a i32)
        (loop $more
            (local.set $a (i32.add (i32.mul (local.get $a) (i32.const 1103515245)) (local.get $i)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (local.get $n))))
        (local.get $a))
    (func $its_caller (param $n i32)
        (i32.store (i32.const 8) (call $hottest_function (local.get $n))))
    (func (export "_start")
        (loop $for_ever (call $its_caller (i32.const 10000000)) (br $for_ever))))"#;

/// A guest that traps, with a volume at `/dumps` and these settings.
async fn trapped(
    containerd: &Containerd,
    image: &str,
    volume: &Path,
    options: &[&str],
    annotations: &[(&str, &str)],
) -> Result<Output> {
    let mut task = containerd
        .task(image)
        .args(["/app.wat"])
        .user(1234, 1234)
        .mount(volume, "/dumps", options.iter().copied());
    for (name, value) in annotations {
        task = task.annotation(&format!("sampan.dev/{name}"), value);
    }
    task.annotation("io.kubernetes.cri.container-name", "web")
        .run()
        .await
}

/// A directory that everybody may write to.
fn volume(containerd: &Containerd, name: &str) -> Result<std::path::PathBuf> {
    let volume = containerd.scratch().dir().join(name);
    std::fs::create_dir(&volume)?;
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777))?;
    Ok(volume)
}

pub(crate) async fn dumps_are_left() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    let image = containerd.import_text("traps", TRAPS).await?;
    let place = volume(&containerd, "volume")?;
    let asked = ("coredump", "/dumps");
    let dump = |number: u32| place.join(format!("web.{number}.core.wasm"));
    let read = |number: u32| -> Result<Value> {
        let path = dump(number);
        let (found, code) = tool.json(&["coredump", path.to_str().context("text")?])?;
        ensure!(code == Some(0), "{found:#}");
        Ok(found)
    };

    // Without the annotation, nothing.
    let output = trapped(&containerd, &image, &place, &["rbind"], &[]).await?;
    ensure!(output.status == 121 && !output.stderr().contains("core dump"));
    ensure!(std::fs::read_dir(&place)?.count() == 0);

    let output = trapped(&containerd, &image, &place, &["rbind"], &[asked]).await?;
    let stderr = output.stderr();
    ensure!(output.status == 121, "{stderr}");
    ensure!(
        stderr.contains("sampan: core dump: /dumps/web.0.core.wasm ("),
        "{stderr}"
    );
    let found = read(0)?;
    let frames = &found["threads"][0]["frames"];
    let names: Vec<_> = (0..2).map(|depth| &frames[depth]["name"]).collect();
    ensure!(names == ["charge_card", "checkout"], "{found:#}");
    ensure!(
        found["modules"][0] == "shop" && frames[0]["module"] == "shop",
        "{found:#}"
    );
    ensure!(
        found["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("unreachable")),
        "{found:#}"
    );
    ensure!(found["memories"][0]["bytes"] == 64 << 16, "{found:#}");
    ensure!(
        found["memories"][0]["stored"] == 2 << 20 && found["leftOut"] == 0,
        "{found:#}"
    );
    let shown = tool.run(&["coredump", dump(0).to_str().context("text")?])?;
    let shown = String::from_utf8(shown.stdout)?;
    ensure!(
        shown.contains("0  charge_card  (shop, function 1 + 0x"),
        "{shown}"
    );
    let mode = dump(0).metadata()?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    // A bound is kept before anything is written.
    let bounds = [asked, ("coredump-max-bytes", "64Ki")];
    let output = trapped(&containerd, &image, &place, &["rbind"], &bounds).await?;
    ensure!(
        output
            .stderr()
            .contains("bytes of memory, for which there is no room"),
        "{}",
        output.stderr()
    );
    ensure!(dump(1).metadata()?.len() <= 64 << 10);
    let found = read(1)?;
    ensure!(
        found["threads"][0]["frames"][0]["name"] == "charge_card",
        "{found:#}"
    );
    ensure!(
        found["leftOut"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1 << 20),
        "{found:#}"
    );

    // What a guest has put there leads nowhere, and a volume is not filled.
    let victim = containerd.scratch().dir().join("victim");
    std::fs::write(&victim, "mine")?;
    symlink(&victim, dump(2))?;
    let output = trapped(&containerd, &image, &place, &["rbind"], &[asked]).await?;
    ensure!(output.status == 121);
    ensure!(
        output
            .stderr()
            .contains("no core dump in /dumps: 3 of this container are there already"),
        "{}",
        output.stderr()
    );
    ensure!(std::fs::read_to_string(&victim)? == "mine");

    // Nor does a directory of it that is a link.
    let elsewhere = volume(&containerd, "elsewhere")?;
    symlink(&elsewhere, place.join("link"))?;
    let output = trapped(
        &containerd,
        &image,
        &place,
        &["rbind"],
        &[("coredump", "/dumps/link")],
    )
    .await?;
    ensure!(output.status == 126, "{}", output.stderr());
    ensure!(
        output
            .stderr()
            .contains("cannot open the directory /dumps/link for core dumps"),
        "{}",
        output.stderr()
    );
    ensure!(std::fs::read_dir(&elsewhere)?.count() == 0);

    // As on a developer's machine.
    let program = tool.dir().join("app.wat");
    std::fs::write(&program, TRAPS)?;
    let own = tool.dir().join("own");
    std::fs::create_dir(&own)?;
    let (program, own) = (program.display().to_string(), own.display().to_string());
    let output = tool.run(&["run", &program, "--coredump", &own])?;
    let told = String::from_utf8(output.stderr)?;
    let file = format!("{own}/app.0.core.wasm");
    ensure!(
        output.status.code() == Some(121) && told.contains(&format!("core dump: {file} (")),
        "{told}"
    );
    let (found, code) = tool.json(&["coredump", &file])?;
    ensure!(
        code == Some(0) && found["threads"][0]["frames"][0]["name"] == "charge_card",
        "{found:#}"
    );
    let output = tool.run(&["run", &program, "--coredump", &program])?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(2) && told.contains("is not a directory"),
        "{told}"
    );

    // What cannot be is refused before the guest begins.
    for (options, dir, says) in [
        (
            ["rbind", "ro"],
            "/dumps",
            "the volume at /dumps is read-only",
        ),
        (
            ["rbind", "rw"],
            "/var/crash",
            "`/var/crash` is in no volume",
        ),
    ] {
        let refused = trapped(&containerd, &image, &place, &options, &[("coredump", dir)]).await;
        let error = refused.err().context("refused")?;
        let text = format!("{error:#}");
        ensure!(
            text.contains("annotation sampan.dev/coredump") && text.contains(says),
            "{text}"
        );
    }
    containerd.assert_clean().await
}

pub(crate) async fn guests_are_profiled() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    let config = containerd.scratch().dir().join("sampan.toml");
    let config = config.to_str().context("a path in text")?;
    let image = containerd.import_text("spins", SPINS).await?;
    let mut task = containerd
        .task(&image)
        .args(["/app.wat"])
        .user(1234, 1234)
        .create()
        .await?;
    task.start().await?;
    let id = task.id().to_owned();
    let line = |seconds: &'static str, more: &[&'static str]| {
        let mut line = vec![
            "profile",
            &*id,
            "--seconds",
            seconds,
            "--node-config",
            config,
        ];
        line.extend(more);
        line.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |line: Vec<String>| {
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        tool.run(&line)
    };

    // Its turns may be few on a busy machine, too few to tell much.
    let repeated = async |seconds, more: &[&'static str], enough: fn(&str) -> bool| {
        let mut text = String::new();
        let seen = until(
            "the guest to be seen",
            Duration::from_secs(60),
            async || {
                text = String::from_utf8(run(line(seconds, more))?.stdout)?;
                Ok(enough(&text).then_some(()))
            },
        );
        let seen = seen.await;
        seen.with_context(|| format!("{more:?}: {text}"))?;
        anyhow::Ok(text)
    };
    let table = repeated("3", &["--output", "json"], |text| {
        let table: Value = serde_json::from_str(text).unwrap_or_default();
        table["samples"]
            .as_u64()
            .is_some_and(|samples| samples > 50)
    });
    let table: Value = serde_json::from_str(&table.await?)?;
    let functions = &table["functions"];
    ensure!(functions[0]["name"] == "hottest_function", "{table:#}");
    let (own, samples) = (&functions[0]["own"], &table["samples"]);
    ensure!(
        own.as_f64() > samples.as_f64().map(|samples| samples * 0.8),
        "{table:#}"
    );
    ensure!(
        table["pid"] == task.pid() && table["guest"] == id.as_str(),
        "{table:#}"
    );
    repeated("1", &["--format", "folded"], |text| {
        text.contains("its_caller;hottest_function ")
    })
    .await?;
    for (format, beginning) in [("svg", "<?xml"), ("firefox", "{")] {
        let named = |text: &str| text.contains("hottest_function");
        let text = repeated("1", &["--format", format], named).await?;
        ensure!(text.starts_with(beginning), "{format}: {text}");
    }

    // The names, where tools look for them.
    let (map, code) = tool.json(&["perf-map", &id, "--node-config", config])?;
    ensure!(code == Some(0), "{map:#}");
    let file = format!("/tmp/perf-{}.map", task.pid());
    ensure!(map["file"] == file.as_str(), "{map:#}");
    let names = std::fs::read_to_string(&file);
    std::fs::remove_file(&file)?;
    ensure!(
        names?
            .lines()
            .any(|line| line.ends_with(" hottest_function"))
    );

    // A guest that ends meanwhile was there until then.
    let line = line("600", &["--output", "json"]);
    let profile = tool
        .command(&line.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Its table is shown when it has ended; that it has begun is known by what the kernel counts for it.
    until(
        "the profile to begin",
        Duration::from_secs(30),
        async || Ok(observes(profile.id()).then_some(())),
    )
    .await?;
    task.kill(9).await?;
    task.wait().await?;
    let output = profile.wait_with_output()?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(told.contains("has ended after"), "{told}");
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{told}");
    task.delete().await?;

    // Nobody, and somebody who does nothing.
    for wrong in ["nobody", &id] {
        let output = tool.run(&["profile", wrong, "--seconds", "1", "--node-config", config])?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(2) && told.contains("no guest of this node is called"),
            "{told}"
        );
    }
    let probe = layer(&containerd, "probe.wasm").await?;
    let mut sleeps = containerd
        .task(&probe)
        .args(["/", "sleep", "600000"])
        .create()
        .await?;
    sleeps.start().await?;
    sleeps.stdout_contains("sleeping").await?;
    let output = tool.run(&[
        "profile",
        sleeps.id(),
        "--seconds",
        "1",
        "--node-config",
        config,
    ])?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && told.contains("used no processor"),
        "{told}"
    );
    sleeps.kill(9).await?;
    sleeps.wait().await?;
    sleeps.delete().await?;
    containerd.assert_clean().await
}

/// Whether a process looks at another: it holds an event of the kernel's.
fn observes(pid: u32) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|link| link.to_string_lossy().contains("perf_event"))
}

pub(crate) async fn lines_are_objects() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let probe = layer(&containerd, "probe.wasm").await?;
    let task = || {
        containerd
            .task(&probe)
            .annotation("sampan.dev/log-format", "json")
    };
    let output = task().args(["/", "both"]).run().await?;
    for (stream, text) in [("stdout", output.stdout()), ("stderr", output.stderr())] {
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect::<Result<_>>()?;
        ensure!(lines.len() == 10, "{text}");
        ensure!(
            lines
                .iter()
                .all(|line| line["stream"] == stream && line["message"].is_string()),
            "{text}"
        );
    }
    // Who executes something beside it reads what it writes.
    let mut sleeps = task().args(["/", "sleep", "600000"]).create().await?;
    sleeps.start().await?;
    sleeps
        .stdout_contains("\"message\":\"sleeping 600000\"")
        .await?;
    let beside = sleeps.exec(["/", "args"]).run().await?;
    ensure!(beside.stdout().starts_with("/\n"), "{}", beside.stdout());
    sleeps.kill(9).await?;
    sleeps.wait().await?;
    sleeps.delete().await?;
    // A terminal is for people.
    let output = containerd
        .task(&probe)
        .annotation("sampan.dev/log-format", "json")
        .terminal()
        .args(["/", "pwd"])
        .run()
        .await?;
    ensure!(output.stdout().trim() == "/", "{}", output.stdout());
    let refused = containerd
        .task(&probe)
        .annotation("sampan.dev/log-format", "xml")
        .args(["/", "pwd"])
        .run()
        .await;
    let text = format!("{:#}", refused.err().context("refused")?);
    ensure!(
        text.contains("sampan.dev/log-format: `xml` is not text or json"),
        "{text}"
    );
    containerd.assert_clean().await
}
