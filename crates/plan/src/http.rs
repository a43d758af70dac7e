use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a wasi:http guest listens, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpListen {
    /// The address, or what is wrong with the one that was given. Only a guest that serves
    /// HTTP is refused for a wrong one: `PORT` may mean something else to a command.
    pub address: Result<SocketAddr, String>,
}

/// Environment variables that name the address, first match wins.
const VARIABLES: [&str; 4] = [
    "SAMPAN_HTTP_LISTEN",
    "WASMTIME_HTTP_PROXY_SOCKET_ADDR",
    "SPIN_HTTP_LISTEN_ADDR",
    "PORT",
];

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

impl HttpListen {
    /// What was set (the place that says it, and the text), else the first of the variables that is set,
    /// else `0.0.0.0:8080`. A bare number is a port on all addresses.
    #[must_use]
    pub fn choose(set: Option<(&str, &str)>, env: &[(String, String)]) -> Self {
        let given = set.or_else(|| {
            VARIABLES.iter().find_map(|variable| {
                env.iter()
                    .rev()
                    .find(|(name, _)| name == variable)
                    .map(|(_, value)| (*variable, value.as_str()))
            })
        });
        let address = match given {
            None => Ok(DEFAULT),
            Some((source, value)) => parse(value).ok_or_else(|| {
                format!("{source}: `{value}` is not an address to listen on (ADDRESS:PORT or PORT)")
            }),
        };
        Self { address }
    }
}

fn parse(value: &str) -> Option<SocketAddr> {
    let value = value.trim();
    if let Ok(port) = value.strip_prefix(':').unwrap_or(value).parse() {
        return Some(SocketAddr::new(DEFAULT.ip(), port));
    }
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn the_annotation_comes_first_then_the_environment_in_order() {
        let all = env(&[
            ("PORT", "1"),
            ("SPIN_HTTP_LISTEN_ADDR", "127.0.0.1:2"),
            ("WASMTIME_HTTP_PROXY_SOCKET_ADDR", "[::]:3"),
            ("SAMPAN_HTTP_LISTEN", ":4"),
        ]);
        let at = |set: Option<&str>, env: &[(String, String)]| {
            HttpListen::choose(set.map(|text| ("annotation", text)), env)
                .address
                .expect("valid")
                .to_string()
        };
        assert_eq!(at(Some("5"), &all), "0.0.0.0:5");
        assert_eq!(at(None, &all), "0.0.0.0:4");
        assert_eq!(at(None, &all[..3]), "[::]:3");
        assert_eq!(at(None, &all[..2]), "127.0.0.1:2");
        assert_eq!(at(None, &all[..1]), "0.0.0.0:1");
        assert_eq!(at(None, &[]), "0.0.0.0:8080");
    }

    #[test]
    fn a_wrong_address_says_where_it_came_from() {
        let error = HttpListen::choose(None, &env(&[("PORT", "tcp://x")]))
            .address
            .expect_err("no port");
        assert!(
            error.contains("PORT") && error.contains("tcp://x"),
            "{error}"
        );
    }
}
