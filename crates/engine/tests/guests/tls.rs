//! Whom a guest trusts when it sends requests over TLS.
//!
//! `tls/` has an authority of our own, whose key was thrown away, and a certificate of it for `localhost`, with its key:
//! made with `openssl req -x509` and `openssl x509 -req`, valid for a hundred years, worth nothing anywhere else.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use plan::Access;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::process::Guest;
use crate::servers::{Answer, Server};

fn made() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/tls")
}

/// A server whose certificate only our own authority vouches for.
fn neighbour() -> SocketAddr {
    let certificate =
        CertificateDer::from_pem_file(made().join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(made().join("server.key")).expect("a key");
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a server");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .expect("bind");
            sender
                .send(listener.local_addr().expect("address"))
                .expect("told");
            let acceptor = TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                // Who does not trust it goes away.
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nwelcome";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
    });
    receiver.recv().expect("an address")
}

fn fetch(there: SocketAddr, change: impl FnOnce(Guest) -> Guest) -> (Answer, String) {
    let mut server = Server::start(change(Guest::built("http-p2")));
    let answer = server.get(&format!(
        "/fetch?scheme=https&authority=localhost:{}&path=/",
        there.port()
    ));
    server.signal(Signal::SIGTERM);
    server.wait();
    (answer, server.stderr())
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn the_guests_own_filesystem_says_whom_it_trusts() {
    let there = neighbour();
    let certificates = tempfile::tempdir().expect("temporary directory");
    let path = certificates.path();
    std::fs::copy(made().join("authority.pem"), path.join("authority.pem")).expect("copied");
    std::fs::write(path.join("empty.pem"), "no certificate\n").expect("written");
    let file = path.join("authority.pem");
    let (file, dir) = (file.to_str().expect("text"), path.to_str().expect("text"));

    // Mozilla's authorities alone do not know it.
    let (answer, _) = fetch(there, |guest| guest);
    assert_eq!(answer.status, 502, "{answer:?}");
    for (name, value) in [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", dir)] {
        let (answer, stderr) = fetch(there, |guest| {
            guest.directory(path, Access::ReadOnly).env(name, value)
        });
        assert!(
            answer.text().contains("welcome"),
            "{name}: {answer:?} {stderr}"
        );
        assert_eq!(stderr, "", "{name}");
    }
    // The same file, which this guest does not see; and one without a certificate.
    let (answer, stderr) = fetch(there, |guest| guest.env("SSL_CERT_FILE", file));
    assert!(
        answer.status == 502 && stderr.contains("cannot read certificates"),
        "{answer:?} {stderr}"
    );
    let empty = path.join("empty.pem");
    let (answer, stderr) = fetch(there, |guest| {
        guest
            .directory(path, Access::ReadOnly)
            .env("SSL_CERT_FILE", empty.to_str().expect("text"))
    });
    assert!(
        answer.status == 502 && stderr.contains("no certificate"),
        "{answer:?} {stderr}"
    );
}
