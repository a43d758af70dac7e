//! Free ports of 127.0.0.1.
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Asks the kernel for ports that nobody uses, all different. They are free when this returns, and nothing keeps others
/// from taking one before it is used: whoever starts a server looks whether it has come up, and tries again.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("ask for a free port")?;
        *port = listener.local_addr().context("read a port")?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_different() {
        let mut ports = free::<8>().expect("eight free ports").to_vec();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }
}
