//! Guests that serve HTTP.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use harness::{free_address, get, listening};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tool_tests::Tool;

use crate::{containerd, layer, path};

pub(crate) const GUESTS: [&str; 5] = [
    "http-p2.wasm",
    "http-p3.wasm",
    "otel.wasm",
    "http-js.wasm",
    "http-py.wasm",
];

const PATHS: [&str; 6] = [
    "/",
    "/env",
    "/args",
    "/status/418",
    "/file?path=/etc/passwd",
    "/none",
];

pub(crate) async fn answer_alike() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    for guest in GUESTS {
        let image = layer(&containerd, guest).await?;
        let address = free_address()?;
        let mut task = containerd
            .task(&image)
            .host_network()
            .args(["/app.wasm"])
            .env("GREETING", "hello")
            .annotation("sampan.dev/http-listen", &address.to_string())
            .create()
            .await?;
        task.start().await?;
        listening(address).await?;
        let inside = answers(address).await;
        task.kill(15).await?;
        let status = task.wait().await?;
        task.delete().await?;
        let inside = inside?;

        let address = free_address()?;
        let line = address.to_string();
        let program = path(guest)?;
        let mut server = tool
            .command(&[
                "run",
                &program,
                "--entry",
                "/app.wasm",
                "--http",
                &line,
                "--env",
                "GREETING=hello",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the tool")?;
        let asked = async {
            listening(address).await?;
            answers(address).await
        };
        let beside = asked.await;
        kill(Pid::from_raw(server.id().try_into()?), Signal::SIGTERM)?;
        let ended = server.wait()?;
        let beside = beside?;
        ensure!(
            inside == beside,
            "{guest}: in a container {inside:?}, by the tool {beside:?}"
        );
        ensure!(
            (status, ended.code()) == (0, Some(0)),
            "{guest}: a container ends with {status}, the tool with {ended}"
        );
    }
    containerd.assert_clean().await
}

/// Status and body of each path.
async fn answers(address: SocketAddr) -> Result<Vec<(u16, String)>> {
    let mut answers = Vec::new();
    for path in PATHS {
        let answer = get(address, path).await?;
        answers.push((answer.status, answer.text()));
    }
    Ok(answers)
}
