//! Standard streams: nothing lost, nothing changed, to wherever they go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Containerd, Stdio, Version, until};
use shim_tests::{containerd, expect, layer, refusal};
use tonic::Code;

/// The bytes of `probe flood`: byte i is `(i mod 65536) * 31 mod 251`.
fn flood() -> Vec<u8> {
    (0..65536_u32)
        .map(|i| u8::try_from(i * 31 % 251).expect("below 251"))
        .collect()
}

fn assert_flood(stdout: &[u8], length: usize) {
    assert_eq!(stdout.len(), length);
    let pattern = flood();
    for (number, part) in stdout.chunks(pattern.len()).enumerate() {
        assert!(
            part == &pattern[..part.len()],
            "the block {number} of 64 KiB has changed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_come_through() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(["/", "flood", "104857600"])
            .run()
            .await?;
        assert_eq!(output.status, 0, "{guest}: {}", output.stderr());
        assert_flood(&output.stdout, 104_857_600);
    }
    containerd.assert_clean().await
}

/// All 256 bytes, more of them than any buffer on the way has room for; the end comes by CloseIO.
#[tokio::test(flavor = "multi_thread")]
async fn stdin_is_binary_and_ends() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let bytes: Vec<u8> = (0..2_000_003_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let builder = containerd.task(&image).stdin(Stdio::Fifo);
        let mut task = builder.args(["/", "cat-stdin"]).create().await?;
        task.start().await?;
        task.write_stdin(&bytes).await?;
        task.close_stdin().await?;
        assert_eq!(task.wait().await?, 0, "{guest}");
        task.delete().await?;
        let output = task.output(0).await;
        assert_eq!(output.stdout.len(), bytes.len(), "{guest}");
        assert!(output.stdout == bytes, "{guest}: the bytes have changed");

        // An end without a byte before it; and none at all where there is no stdin.
        let builder = containerd.task(&image).stdin(Stdio::Fifo);
        let mut task = builder.args(["/", "block"]).create().await?;
        task.start().await?;
        task.stdout_contains("waiting").await?;
        task.close_stdin().await?;
        assert_eq!(task.wait().await?, 0, "{guest}");
        task.delete().await?;
        let output = containerd
            .task(&image)
            .args(["/", "cat-stdin"])
            .run()
            .await?;
        assert_eq!(
            (output.status, output.stdout()),
            (0, String::new()),
            "{guest}"
        );
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_and_stderr_are_apart() -> Result<()> {
    let Some(containerd) = containerd(Version::V1_7).await? else {
        return Ok(());
    };
    for guest in ["probe.wasm", "probe-p2.wasm"] {
        let image = layer(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(["/", "stderr", "only there"])
            .run()
            .await?;
        assert_eq!(
            (output.stdout(), output.stderr()),
            (String::new(), "only there\n".into()),
            "{guest}"
        );
        let output = containerd.task(&image).args(["/", "both"]).run().await?;
        assert_eq!(
            (
                output.stdout().lines().count(),
                output.stderr().lines().count()
            ),
            (10, 10),
            "{guest}"
        );
        // Nobody wants to hear it.
        let builder = containerd
            .task(&image)
            .stdout(Stdio::Null)
            .stderr(Stdio::Null);
        assert_eq!(
            builder.args(["/", "both"]).run().await?.status,
            0,
            "{guest}"
        );
    }
    containerd.assert_clean().await
}

/// As nerdctl's `--log-driver` for files: appended to, the directory made where it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn streams_go_into_files() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let dir = containerd.scratch().dir().join("logs");
    let (out, err) = (dir.join("out log"), dir.join("err"));
    let uri = |path: &Path| Stdio::Uri(format!("file://{}", path.display()).replace(' ', "%20"));
    for _ in 0..2 {
        let builder = containerd.task(&image).stdout(uri(&out)).stderr(uri(&err));
        assert_eq!(builder.args(["/", "both"]).run().await?.status, 0);
    }
    assert_eq!(std::fs::read_to_string(&out)?.lines().count(), 20);
    assert_eq!(std::fs::read_to_string(&err)?.lines().count(), 20);

    // All of it, however fast the end comes.
    let big = dir.join("big");
    let builder = containerd.task(&image).stdout(uri(&big));
    builder.args(["/", "flood", "1000000"]).run().await?;
    assert_flood(&std::fs::read(&big)?, 1_000_000);
    containerd.assert_clean().await
}

/// A program that reads both outputs: descriptors 3 and 4, ready when it closes 5.
fn logger(dir: &Path) -> Result<std::path::PathBuf> {
    let script = dir.join("logger");
    let text = "#!/bin/sh\nexec 5>&-\nto=$2\necho \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" > $to.who\ncat <&4 > $to.err &\ncat <&3 > $to.out\nwait\nmv $to.who $to.done\n";
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    Ok(script)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_to_a_program() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let script = logger(containerd.scratch().dir())?;
    let (flooded, said) = (
        containerd.scratch().dir().join("flooded"),
        containerd.scratch().dir().join("said"),
    );
    let uri = |to: &Path| format!("binary://{}?to={}&flag", script.display(), to.display());
    run_logged(
        &containerd,
        &image,
        &["/", "flood", "1000000"],
        &uri(&flooded),
    )
    .await?;
    let id = run_logged(&containerd, &image, &["/", "both"], &uri(&said)).await?;
    for to in [&flooded, &said] {
        let done = to.with_extension("done");
        until(
            "the logging program's end",
            Duration::from_secs(10),
            async || Ok(done.exists().then_some(())),
        )
        .await?;
    }
    assert_flood(&std::fs::read(flooded.with_extension("out"))?, 1_000_000);
    assert_eq!(
        std::fs::read_to_string(said.with_extension("out"))?
            .lines()
            .count(),
        10
    );
    assert_eq!(
        std::fs::read_to_string(said.with_extension("err"))?
            .lines()
            .count(),
        10
    );
    let who = std::fs::read_to_string(said.with_extension("done"))?;
    assert_eq!(
        who.trim(),
        format!("default {id} to {} flag", said.display())
    );
    containerd.assert_clean().await
}

async fn run_logged(
    containerd: &Containerd,
    image: &str,
    args: &[&str],
    uri: &str,
) -> Result<String> {
    let uri = Stdio::Uri(uri.to_owned());
    let builder = containerd.task(image).stdout(uri.clone()).stderr(uri);
    let mut task = builder.args(args.iter().copied()).create().await?;
    let id = task.id().to_owned();
    task.start().await?;
    assert_eq!(task.wait().await?, 0);
    task.delete()
        .await
        .context("delete a task that a program logs")?;
    Ok(id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_opened_is_named() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    for (uri, code, name) in [
        ("/nowhere/at/all", Code::NotFound, "/nowhere/at/all"),
        (
            "binary:///nowhere/logger",
            Code::FailedPrecondition,
            "/nowhere/logger",
        ),
        ("npipe:///pipe", Code::Unimplemented, "npipe"),
        ("file://relative", Code::InvalidArgument, "relative"),
    ] {
        let builder = containerd.task(&image).stdout(Stdio::Uri(uri.to_owned()));
        let status = refusal(builder.args(["/"]).create().await)?;
        expect(&status, code, &[name]);
    }
    containerd.assert_clean().await
}
