//! A pod that is stopped while it serves: what was asked is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cri_tests::{House, house};
use futures::future::join_all;
use harness::{CriContainer, Pod, Version, get, listening, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 16;
/// Seconds that the kubelet would give.
const GRACE: i64 = 30;

async fn served<'a>(
    house: &'a House,
    pod: &Pod<'a>,
    name: &str,
) -> Result<(CriContainer<'a>, SocketAddr)> {
    let reference = house.pulled_guest(name, "wasip2").await?;
    let container = pod
        .container(name, &reference)
        .command(["/"])
        .create()
        .await?;
    container.start().await?;
    let address = pod.address().await?.context("the pod has an address")?;
    let server = SocketAddr::new(address, 8080);
    listening(server).await?;
    // The first requests fill caches; what follows is the load.
    get(server, "/").await?;
    Ok((container, server))
}

/// A connection that is kept for many requests.
struct Connection(TcpStream);

/// What came of a request.
enum Outcome {
    Answered { last: bool },
    Failed(anyhow::Error),
}

impl Connection {
    async fn ask(&mut self, path: &str) -> Outcome {
        match self.exchange(path).await {
            Ok(last) => Outcome::Answered { last },
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Whether the server closes the connection after this answer.
    async fn exchange(&mut self, path: &str) -> Result<bool> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            if self.0.read_buf(&mut answer).await? == 0 {
                bail!("the answer ends after {} bytes", answer.len());
            }
        }
        let text = String::from_utf8_lossy(&answer);
        if !text.starts_with("HTTP/1.1 200 ") {
            bail!("{}", text.lines().next().unwrap_or_default());
        }
        Ok(text.contains("\r\nconnection: close\r\n"))
    }
}

/// Whether the head, and then the chunks to the empty one, are there.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n0\r\n\r\n")
}

/// How it went for one client.
#[derive(Debug, Default)]
struct Story {
    answered: u64,
    told_to_close: bool,
    failures: Vec<String>,
}

/// Asks until nobody accepts connections any more.
async fn client(server: SocketAddr, path: &'static str, answered: Arc<AtomicU64>) -> Story {
    let mut story = Story::default();
    while let Ok(stream) = TcpStream::connect(server).await {
        let mut connection = Connection(stream);
        loop {
            match connection.ask(path).await {
                Outcome::Answered { last } => {
                    story.answered += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                    story.told_to_close |= last;
                    if last {
                        break;
                    }
                }
                Outcome::Failed(error) => {
                    story.failures.push(format!("{error:#}"));
                    break;
                }
            }
        }
        if story.failures.len() > 3 {
            break;
        }
    }
    story
}

/// 16 clients on kept connections, 1,000 requests, all answered while the container is stopped under them.
async fn under_load(version: Version, name: &str) -> Result<()> {
    let Some(house) = house(version).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let (container, server) = served(&house, &pod, name).await?;

    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(server, "/slow?ms=20", Arc::clone(&answered))))
        .collect();
    until("the first answers", Duration::from_secs(60), async || {
        Ok((answered.load(Ordering::Relaxed) >= 1_000).then_some(()))
    })
    .await?;
    container.stop(GRACE).await?;
    let exit = container.wait().await?;
    let mut total = 0;
    for story in join_all(clients).await {
        let story = story?;
        assert!(story.failures.is_empty(), "{story:?}");
        assert!(story.told_to_close, "{story:?}");
        total += story.answered;
    }
    assert!(total >= 1_000, "{total}");
    assert_eq!(exit.exit_code, 0, "{exit:?} {:?}", container.logs());
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// Requests that take longer than it takes to stop are finished first.
async fn slow_ones(name: &str) -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let (container, server) = served(&house, &pod, name).await?;

    let mut connections = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(Connection(TcpStream::connect(server).await?));
    }
    // They are accepted in their order, so the one that is answered says that all before it are in the guest's hands.
    let slow = connections
        .into_iter()
        .map(|mut connection| tokio::spawn(async move { connection.ask("/slow?ms=3000").await }));
    let slow: Vec<_> = slow.collect();
    get(server, "/").await?;
    let began = Instant::now();
    container.stop(GRACE).await?;
    let took = began.elapsed();
    for outcome in join_all(slow).await {
        match outcome? {
            Outcome::Answered { last } => assert!(last, "told to close"),
            Outcome::Failed(error) => return Err(error),
        }
    }
    let exit = container.wait().await?;
    assert_eq!(exit.exit_code, 0, "{exit:?} {:?}", container.logs());
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(20),
        "it waited for the answers and no longer: {took:?}"
    );
    pod.remove().await?;
    house.containerd.assert_clean().await
}

/// A connection that nobody uses does not hold the container.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_hold_a_stop() -> Result<()> {
    let Some(house) = house(Version::V2).await? else {
        return Ok(());
    };
    let cri = house.containerd.cri().await?;
    let pod = cri.pod("sampan").run().await?;
    let (container, server) = served(&house, &pod, "http-p2").await?;
    let silent = TcpStream::connect(server).await?;
    let mut used = Connection(TcpStream::connect(server).await?);
    assert!(!used.exchange("/").await?, "kept for the next request");
    let began = Instant::now();
    container.stop(GRACE).await?;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(container.wait().await?.exit_code, 0);
    drop((silent, used));
    pod.remove().await?;
    house.containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_by_a_stop_under_load_on_2() -> Result<()> {
    under_load(Version::V2, "http-p2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_by_a_stop_under_load_of_wasi_0_3_on_1_7() -> Result<()> {
    under_load(Version::V1_7, "http-p3").await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_are_finished() -> Result<()> {
    slow_ones("http-p2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_requests_of_wasi_0_3_are_finished() -> Result<()> {
    slow_ones("http-p3").await
}
