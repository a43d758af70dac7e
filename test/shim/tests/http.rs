//! HTTP guests through containerd: limits of their requests, and what is written of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Containerd, Output, Task, Version, free_address, get, listening, post};
use shim_tests::{containerd, layer};

struct Served<'a> {
    task: Task<'a>,
    address: SocketAddr,
}

impl<'a> Served<'a> {
    async fn start(
        containerd: &'a Containerd,
        image: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let address = free_address()?;
        let mut builder = containerd
            .task(image)
            .host_network()
            .args(["/"])
            .annotation("sampan.dev/http-listen", &address.to_string());
        for (name, value) in settings {
            builder = builder.annotation(&format!("sampan.dev/{name}"), value);
        }
        let mut task = builder.create().await?;
        task.start().await?;
        listening(address).await?;
        Ok(Self { task, address })
    }

    /// Asks it to end, and gives what it wrote.
    async fn end(mut self) -> Result<Output> {
        self.task.kill(15).await?;
        let status = self.task.wait().await?;
        let output = self.task.output(status).await;
        self.task.delete().await?;
        Ok(output)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_at_its_time_while_others_go_on() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    for guest in ["http-p2.wasm", "http-p3.wasm"] {
        let image = layer(&containerd, guest).await?;
        let server = Served::start(&containerd, &image, &[("request-timeout", "4s")]).await?;
        let address = server.address;
        let begun = Instant::now();
        let path = if guest == "http-p2.wasm" {
            "/spin"
        } else {
            "/slow?ms=60000"
        };
        let spinning: Vec<_> = (0..4)
            .map(|_| tokio::spawn(async move { get(address, path).await }))
            .collect();
        assert_eq!(get(address, "/").await?.status, 200);
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{guest}: others go on"
        );
        for request in spinning {
            assert_eq!(request.await??.status, 504, "{guest}");
        }
        assert_eq!(get(address, "/").await?.status, 200);
        // Nothing of them holds the end back.
        let output = server.end().await?;
        assert_eq!(output.status, 0, "{output:?}");
        let stderr = output.stderr();
        assert_eq!(stderr.matches("took longer than 4s").count(), 4, "{stderr}");
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_crowds_are_bounded() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "http-p2.wasm").await?;
    let settings = [
        ("max-request-body", "1Ki"),
        ("max-concurrent-requests", "1"),
    ];
    let server = Served::start(&containerd, &image, &settings).await?;
    let address = server.address;
    assert_eq!(
        post(address, "/echo", vec![b'x'; 1024]).await?.body.len(),
        1024
    );
    assert_eq!(post(address, "/echo", vec![b'x'; 1025]).await?.status, 413);
    let crowd: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { get(address, "/slow?ms=1500").await }))
        .collect();
    let mut statuses = Vec::new();
    for request in crowd {
        statuses.push(request.await??.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(server.end().await?.status, 0);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_who_was_answered_and_whose_line_it_is() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "http-p2.wasm").await?;
    let settings = [("access-log", "json"), ("log-request-id", "true")];
    let server = Served::start(&containerd, &image, &settings).await?;
    assert_eq!(get(server.address, "/stdout?text=hello").await?.status, 200);
    let output = server.end().await?;
    let stderr = output.stderr();
    let entry: serde_json::Value = serde_json::from_str(stderr.lines().next().unwrap_or_default())?;
    assert_eq!(
        (&entry["path"], &entry["status"]),
        (&"/stdout".into(), &200.into()),
        "{stderr}"
    );
    let id = entry["id"].as_str().unwrap_or_default();
    assert_eq!(output.stdout(), format!("[{id}] hello\n"));
    containerd.assert_clean().await
}

/// An upload that would not fit into the container's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_takes_constant_memory() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "http-p2.wasm").await?;
    let server = Served::start(&containerd, &image, &[]).await?;
    let peak = || -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.task.pid()))?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default();
        Ok(line.split_whitespace().nth(1).unwrap_or("0").parse()?)
    };
    let body = vec![7_u8; 64 << 20];
    let answer = post(server.address, "/echo", body).await?;
    assert_eq!(answer.body.len(), 64 << 20);
    let kilobytes = peak()?;
    assert!(kilobytes < 48 << 10, "{kilobytes} kB");
    assert_eq!(server.end().await?.status, 0);
    containerd.assert_clean().await
}
