//! Sockets. WASI 0.1 has none of these: there every command answers that it is unsupported.

use crate::Answer;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

/// Connects, says so, sends one line and prints everything that comes back until the other side
/// closes.
pub(crate) fn connect(host: &str, port: u16) -> Answer {
    let mut stream = TcpStream::connect((host, port))?;
    println!("connected to {host} {port}");
    stream.write_all(b"hello from probe\n")?;
    // The listener echoes until it sees this end.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    io::stdout().write_all(&answer)?;
    Ok(None)
}

/// Listens (port 0: any), prints `listening ADDRESS`, serves one connection: echoes until the other
/// side stops sending.
pub(crate) fn listen(address: &str, port: u16) -> Answer {
    let listener = TcpListener::bind((address, port))?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
    let (mut stream, peer) = listener.accept()?;
    println!("accepted {}", peer.ip());
    let mut bytes = [0; 4096];
    loop {
        let length = stream.read(&mut bytes)?;
        if length == 0 {
            return Ok(Some("closed".to_string()));
        }
        stream.write_all(&bytes[..length])?;
    }
}

/// Sends one datagram and does not wait for an answer.
pub(crate) fn send_datagram(host: &str, port: u16) -> Answer {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let length = socket.send_to(b"hello from probe\n", (host, port))?;
    Ok(Some(format!("sent {length} to {host} {port}")))
}

/// The addresses of a name, one a line.
pub(crate) fn resolve(host: &str) -> Answer {
    let addresses: Vec<String> = (host, 0)
        .to_socket_addrs()?
        .map(|address| address.ip().to_string())
        .collect();
    Ok(Some(addresses.join("\n")))
}
