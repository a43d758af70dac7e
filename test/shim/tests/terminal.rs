//! Terminals of wasm guests. Those of native programs are in `native.rs`, where runc's shim has to pass as well.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Stdio, Version};
use shim_tests::{containerd, layer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

const PROBES: [&str; 2] = ["probe.wasm", "probe-p2.wasm"];

/// A guest is told that its streams are a terminal, what it writes arrives as a terminal shows it, and what is typed is
/// shown; in the container's own program and in what is executed beside it.
async fn talks(version: Version) -> Result<()> {
    let Some(containerd) = containerd(version).await? else {
        return Ok(());
    };
    for guest in PROBES {
        let image = layer(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(["/", "tty"])
            .terminal()
            .run()
            .await?;
        let all = "stdin terminal\r\nstdout terminal\r\nstderr terminal\r\n";
        assert_eq!(
            (output.status, output.stdout()),
            (0, all.to_owned()),
            "{guest}"
        );
        let output = containerd.task(&image).args(["/", "tty"]).run().await?;
        let none = "stdin none\nstdout none\nstderr none\n";
        assert_eq!(output.stdout(), none, "{guest}");

        let builder = containerd.task(&image).args(["/", "lines"]);
        let mut task = builder.terminal().stdin(Stdio::Fifo).create().await?;
        task.start().await?;
        task.stdout_contains("reading").await?;
        assert!(task.state().await?.terminal, "{guest}");
        task.write_stdin(b"ahoy\n").await?;
        task.stdout_contains("ahoy\r\ngot ahoy\r\n").await?;

        let output = task.exec(["/", "tty"]).terminal();
        assert_eq!(output.run().await?.stdout(), all, "{guest}");
        let output = task.exec(["/", "tty"]);
        assert_eq!(output.run().await?.stdout(), none, "{guest}");
        let mut exec = task
            .exec(["/", "lines"])
            .terminal()
            .stdin(Stdio::Fifo)
            .add()
            .await?;
        exec.start().await?;
        exec.stdout_contains("reading").await?;
        // A key is a signal to what reads the terminal, and to nothing else.
        exec.write_stdin(b"one\n").await?;
        exec.stdout_contains("got one\r\n").await?;
        exec.write_stdin(b"\x03").await?;
        assert_eq!(exec.wait().await?, 130, "{guest}");
        exec.delete().await?;
        let text = exec.output(130).await.stdout();
        assert!(text.contains("got one\r\n"), "{guest}: {text:?}");
        drop(exec);

        // The end of a line's input: Ctrl-D.
        task.write_stdin(b"\x04").await?;
        assert_eq!(task.wait().await?, 0, "{guest}");
        task.delete().await?;
        let text = task.output(0).await.stdout();
        assert!(text.ends_with("end of input\r\n"), "{guest}: {text:?}");
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_talks_to_its_terminal_on_2() -> Result<()> {
    talks(Version::V2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_talks_to_its_terminal_on_1_7() -> Result<()> {
    talks(Version::V1_7).await
}

/// All that a guest writes arrives, though it has ended before most of it was read.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_output_arrives() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let plain = containerd
        .task(&image)
        .args(["/", "flood", "1000000"])
        .run()
        .await?;
    // As the terminal shows it: every line feed gets a carriage return.
    let mut shown = Vec::new();
    for byte in &plain.stdout {
        if *byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(*byte);
    }
    // A terminal's own tabulators are left as they are.
    let output = containerd
        .task(&image)
        .args(["/", "flood", "1000000"])
        .terminal()
        .run()
        .await?;
    assert_eq!(output.stdout.len(), shown.len());
    assert!(output.stdout == shown);
    containerd.assert_clean().await
}

/// The size of a terminal, set before the start, while it runs, and where there is no terminal; read from the kernel,
/// because a guest cannot ask for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_size_is_set() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let builder = containerd.task(&image).args(["/", "spin"]).terminal();
    let mut task = builder.create().await?;
    task.resize(80, 24).await?;
    task.start().await?;
    task.stdout_contains("spinning").await?;
    assert_eq!(size(task.pid())?, (80, 24));
    task.resize(123, 45).await?;
    assert_eq!(size(task.pid())?, (123, 45));

    let mut exec = task.exec(["/", "spin"]).terminal().add().await?;
    exec.resize(70, 20).await?;
    let pid = exec.start().await?;
    exec.stdout_contains("spinning").await?;
    assert_eq!(size(pid)?, (70, 20));
    exec.resize(60, 30).await?;
    assert_eq!((size(pid)?, size(task.pid())?), ((60, 30), (123, 45)));
    exec.kill(9).await?;
    exec.wait().await?;
    exec.delete().await?;
    drop(exec);

    // As with runc's shim, whoever has no terminal ignores it.
    let exec = task.exec(["/", "spin"]).add().await?;
    exec.resize(70, 20).await?;
    exec.delete().await?;
    drop(exec);
    task.kill(9).await?;
    task.wait().await?;
    task.delete().await?;
    containerd.assert_clean().await
}

/// Columns and rows of the terminal that is a process's standard input.
fn size(pid: u32) -> Result<(u16, u16)> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOCTTY)
        .open(format!("/proc/{pid}/fd/0"))?;
    let output = std::process::Command::new("stty")
        .arg("size")
        .stdin(file)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u16> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [rows, columns] => Ok((columns, rows)),
        _ => anyhow::bail!("`stty size` says {text:?}"),
    }
}

/// containerd is killed and comes back: the terminal is still there, in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn it_survives_containerd() -> Result<()> {
    let Some(mut containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    // Ours, so that they outlive the task's description, which cannot outlive a restart.
    let fifo = |name: &str| -> Result<PathBuf> {
        let path = containerd.scratch().dir().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)?;
        Ok(path)
    };
    let (typed, shown) = (fifo("typed")?, fifo("shown")?);
    let both = || {
        let mut options = pipe::OpenOptions::new();
        options.read_write(true);
        options
    };
    let mut reader = both().open_receiver(&shown)?;
    let id = {
        let builder = containerd.task(&image).args(["/", "lines"]).terminal();
        let builder = builder.stdout(Stdio::Uri(shown.display().to_string()));
        let mut task = builder
            .stdin(Stdio::Uri(typed.display().to_string()))
            .create()
            .await?;
        task.start().await?;
        task.id().to_owned()
    };
    says(&mut reader, "reading\r\n").await?;
    containerd.kill9()?;
    both().open_sender(&typed)?.write_all(b"ahoy\n").await?;
    says(&mut reader, "ahoy\r\ngot ahoy\r\n").await?;
    containerd.restart().await?;
    both().open_sender(&typed)?.write_all(b"again\n").await?;
    says(&mut reader, "again\r\ngot again\r\n").await?;
    containerd
        .ctr("default", &["tasks", "rm", "--force", &id])
        .await?;
    containerd
        .ctr("default", &["containers", "rm", &id])
        .await?;
    containerd.assert_clean().await
}

/// Waits for exactly this text.
async fn says(reader: &mut pipe::Receiver, text: &str) -> Result<()> {
    let mut bytes = vec![0; text.len()];
    let read = reader.read_exact(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .with_context(|| format!("wait for {text:?}"))??;
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    Ok(())
}
