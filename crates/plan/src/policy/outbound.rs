use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where a guest's connections, datagrams and requests may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outbound {
    /// Wherever the pod's network namespace lets them.
    All,
    /// Where a rule says, and nowhere else.
    Listed(Vec<Rule>),
}

/// One entry of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Whom it means.
    pub host: Host,
    /// The port; `None` is every port.
    pub port: Option<u16>,
}

/// Whom a [`Rule`] means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Host {
    /// The addresses whose first bits are these: address and number of bits (CIDR).
    Net(IpAddr, u8),
    /// A name, in lower case, and the addresses that it resolves to.
    Name(String),
    /// All names below a domain (`example.com` of `*.example.com`), in lower case, but not the domain itself.
    Below(String),
}

impl Rule {
    /// `HOST[:PORT]`, `IP[/PREFIX][:PORT]` or `*.DOMAIN[:PORT]`; an IPv6 address with a port or a prefix stands in
    /// brackets (`[fd00::/8]:443`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']')?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port_of(port)?),
                None if after.is_empty() => None,
                None => return None,
            };
            let host = net_of(inside).filter(|host| matches!(host, Host::Net(IpAddr::V6(_), _)))?;
            return Some(Self { host, port });
        }
        // Bare IPv6, without a port.
        if text.matches(':').count() > 1 {
            return Some(Self {
                host: net_of(text)?,
                port: None,
            });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port_of(port)?)),
            None => (text, None),
        };
        let host = match host.strip_prefix("*.") {
            Some(domain) => Host::Below(name_of(domain)?),
            // What looks like an address has to be one: `10.0.0.256` is no name.
            None if host.contains('/') || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                net_of(host)?
            }
            None => Host::Name(name_of(host)?),
        };
        Some(Self { host, port })
    }

    /// Whether everything that the other allows is allowed by this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let port = self.port.is_none() || self.port == other.port;
        let host = match (&self.host, &other.host) {
            (Host::Net(_, bits), Host::Net(address, more)) => bits <= more && self.has(*address),
            (Host::Name(_), Host::Name(_)) => self.host == other.host,
            (Host::Below(_), Host::Name(name)) => self.names(name),
            (Host::Below(domain), Host::Below(deeper)) => domain == deeper || self.names(deeper),
            _ => false,
        };
        port && host
    }

    /// Whether it means this address by its number.
    #[must_use]
    pub fn allows(&self, address: SocketAddr) -> bool {
        self.allows_port(address.port()) && self.has(address.ip())
    }

    /// Whether it means this port.
    #[must_use]
    pub fn allows_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    /// Whether it means this name, whatever its case and with or without the root's dot.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        match &self.host {
            Host::Net(..) => false,
            Host::Name(own) => *own == name,
            Host::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes is the same machine.
        match (&self.host, address.to_canonical()) {
            (Host::Net(IpAddr::V4(net), bits), IpAddr::V4(address)) => {
                same_start(net.to_bits().into(), address.to_bits().into(), *bits, 32)
            }
            (Host::Net(IpAddr::V6(net), bits), IpAddr::V6(address)) => {
                same_start(net.to_bits(), address.to_bits(), *bits, 128)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Net(address @ IpAddr::V4(_), 32) => write!(f, "{address}")?,
            Host::Net(address @ IpAddr::V4(_), bits) => write!(f, "{address}/{bits}")?,
            Host::Net(address @ IpAddr::V6(_), 128) => write!(f, "[{address}]")?,
            Host::Net(address @ IpAddr::V6(_), bits) => write!(f, "[{address}/{bits}]")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(domain) => write!(f, "*.{domain}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn same_start(one: u128, other: u128, bits: u8, width: u32) -> bool {
    let rest = width.saturating_sub(bits.into());
    rest >= 128 || (one ^ other) >> rest == 0
}

fn port_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn net_of(text: &str) -> Option<Host> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some(Host::Net(address, bits))
}

/// A name of the DNS: labels of letters, digits, `-` and `_`, 253 characters at most (RFC 1035, 2.3.4).
fn name_of(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::parse(text).unwrap_or_else(|| panic!("`{text}` is a rule"))
    }

    #[test]
    fn rules_are_read_and_shown() {
        for text in [
            "example.com",
            "api.example.com:443",
            "*.example.com:443",
            "10.0.0.1",
            "10.0.0.0/8:5432",
            "[::1]:80",
            "[fd00::/8]:443",
            "localhost:8080",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(rule("fd00::/8"), rule("[fd00::/8]"));
        assert_eq!(rule("Example.COM."), rule("example.com"));
        for text in [
            "",
            ":80",
            "host:",
            "host:0",
            "host:99999",
            "a b",
            "10.0.0.256",
            "10.0.0.0/33",
            "[::1",
            "[::1]x",
            "*",
            "*.",
            "http://x",
            "[10.0.0.1]",
            "a..b",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_are_compared_by_their_first_bits() {
        let allows =
            |text: &str, address: &str| rule(text).allows(address.parse().expect("an address"));
        assert!(allows("10.0.0.0/8:5432", "10.255.1.2:5432"));
        assert!(!allows("10.0.0.0/8:5432", "10.255.1.2:80"));
        assert!(!allows("10.0.0.0/8", "11.0.0.1:80"));
        assert!(allows("0.0.0.0/0", "11.0.0.1:80"));
        assert!(allows("10.0.0.1", "[::ffff:10.0.0.1]:80"));
        assert!(allows("[fd00::/8]", "[fd12::1]:80"));
        assert!(!allows("[::/0]", "10.0.0.1:80"));
        assert!(!allows("example.com", "10.0.0.1:80"));
    }

    #[test]
    fn names_below_a_domain_are_meant_and_the_domain_is_not() {
        assert!(rule("*.example.com").names("a.b.Example.com."));
        assert!(!rule("*.example.com").names("example.com"));
        assert!(!rule("*.example.com").names("badexample.com"));
        assert!(!rule("*.example.com").names(".example.com"));
        assert!(
            rule("example.com").names("EXAMPLE.com") && !rule("example.com").names("a.example.com")
        );
    }

    #[test]
    fn a_ceiling_covers_what_is_narrower() {
        for (ceiling, asked) in [
            ("10.0.0.0/8", "10.1.0.0/16:80"),
            ("*.example.com:443", "api.example.com:443"),
            ("*.example.com", "*.eu.example.com:443"),
            ("*.example.com", "*.example.com"),
            ("host:80", "host:80"),
        ] {
            assert!(rule(ceiling).covers(&rule(asked)), "{ceiling} {asked}");
        }
        for (ceiling, asked) in [
            ("10.1.0.0/16", "10.0.0.0/8"),
            ("host:80", "host"),
            ("host:80", "host:81"),
            ("*.example.com", "example.com"),
            ("10.0.0.0/8", "host"),
            ("host", "10.0.0.1"),
        ] {
            assert!(!rule(ceiling).covers(&rule(asked)), "{ceiling} {asked}");
        }
    }
}
