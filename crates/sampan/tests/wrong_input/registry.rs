//! A registry that answers with whatever lies in a directory.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that, where it is there, stands in the place of an answer's head.
pub(crate) const HEAD: &str = "registry/head";

/// Serves the directory of the cases, as long as this process lives.
pub(crate) fn start(case: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // Who asks no further is the tool, which gave up.
            let _ = answer(connection, &case);
        }
    });
    address
}

fn answer(mut connection: TcpStream, case: &Path) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut asked = Vec::new();
    let mut buffer = [0; 4096];
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer)? {
            0 => return Ok(()),
            size => asked.extend_from_slice(&buffer[..size]),
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let path = asked.split(' ').nth(1).unwrap_or_default();
    // `/v2/x/manifests/v1`, `/v2/x/blobs/sha256:...`
    let name: Vec<_> = path.split('/').skip(3).take(2).collect();
    let found = if path == "/v2/" {
        Some(b"{}".to_vec())
    } else {
        std::fs::read(case.join("registry").join(name.join("/"))).ok()
    };
    let head = std::fs::read(case.join(HEAD))
        .ok()
        .filter(|_| path != "/v2/");
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", b"{}".to_vec()),
    };
    let usual = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    connection.write_all(&head.unwrap_or_else(|| usual.into_bytes()))?;
    connection.write_all(b"Connection: close\r\n\r\n")?;
    if !asked.starts_with("HEAD ") {
        connection.write_all(&body)?;
    }
    Ok(())
}
