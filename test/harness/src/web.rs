use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::poll::until;

/// How long a server may take to listen.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a server has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks a server for a path, over HTTP/1.1.
///
/// # Errors
/// When nobody listens there, or the answer ends early.
pub async fn get(server: SocketAddr, path: &str) -> Result<Answer> {
    request(Method::GET, server, path, Bytes::new()).await
}

/// Posts a body to a server, over HTTP/1.1.
///
/// # Errors
/// As [`get`].
pub async fn post(server: SocketAddr, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
    request(Method::POST, server, path, body.into()).await
}

/// An address of loopback that is free, and stays so until somebody listens there: it is this process's alone, and is given
/// once.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // On 127.0.0.1 another process that asks for any port would get this one.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ours = Ipv4Addr::new(127, 1 + high % 254, middle, low);
    loop {
        let address = TcpListener::bind((ours, 0))?.local_addr()?;
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(address.port()) {
            return Ok(address);
        }
    }
}

/// Waits until somebody accepts connections there, at most a minute.
///
/// # Errors
/// When nobody does.
pub async fn listening(server: SocketAddr) -> Result<()> {
    until(&format!("a server at {server}"), DEADLINE, async || {
        Ok(tokio::net::TcpStream::connect(server).await.ok().map(drop))
    })
    .await
}

async fn request(method: Method, server: SocketAddr, path: &str, body: Bytes) -> Result<Answer> {
    let target = format!("http://{server}{path}");
    let request = Request::builder()
        .method(&method)
        .uri(&target)
        .body(Full::new(body))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client
        .request(request)
        .await
        .with_context(|| format!("{method} {target}"))?;
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .with_context(|| format!("read the answer to {method} {target}"))?
        .to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once() {
        let given: BTreeSet<_> = (0..500).map(|_| free_address().expect("free")).collect();
        assert_eq!(given.len(), 500);
        assert!(
            given
                .iter()
                .all(|it| it.ip().is_loopback() && it.ip() != Ipv4Addr::LOCALHOST)
        );
    }
}
