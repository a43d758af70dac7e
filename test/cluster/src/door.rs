//! The address at which pods find the API: that of the Service `kubernetes`, which no proxy translates here.
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The port of the Service `kubernetes`.
const PORT: u16 = 443;

/// Passes connections on until it is dropped.
#[derive(Debug)]
pub(crate) struct Door(JoinHandle<()>);

/// The first address of a subnet of Services, which the API takes for the Service `kubernetes`.
pub(crate) fn address(services: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(services.to_bits() + 1)
}

impl Door {
    /// Listens at the first address of the Services, which has to be the host's, for an API on loopback.
    pub(crate) async fn open(services: Ipv4Addr, api: u16) -> Result<Self> {
        let here = address(services);
        let listener = TcpListener::bind((here, PORT))
            .await
            .with_context(|| format!("listen at {here}:{PORT}"))?;
        Ok(Self(tokio::spawn(async move {
            // It fails when there are too many descriptors, and the next one may find some again.
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(pass(stream, api));
                }
            }
        })))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pass(mut from: TcpStream, api: u16) {
    if let Ok(mut to) = TcpStream::connect((Ipv4Addr::LOCALHOST, api)).await {
        // Whoever ends it has their reason, and the other one hears of it.
        drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
    }
}
