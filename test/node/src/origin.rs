//! A server that a guest asks something, and a client that asks a guest: both see the headers as they are on the wire.
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Answers every request with `ok`, and keeps its head; gone when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Origin {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(head);
                let answer =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";
                drop(stream.write_all(answer).await);
            }
        });
        Ok(Self {
            address,
            heads,
            serving,
        })
    }

    /// A header of the newest request.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        header(heads.last()?, name)
    }
}

/// The value of a header in lines of `name: value`.
#[must_use]
pub fn header(lines: &str, name: &str) -> Option<String> {
    lines.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// Asks a server for a path, with headers; gives the whole answer as text.
///
/// # Errors
/// When nobody answers.
pub async fn ask(server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<String> {
    let mut stream = TcpStream::connect(server).await.context("connect")?;
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
