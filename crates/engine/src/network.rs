//! What a guest may reach: one gate for its sockets, its name lookups and its wasi:http requests.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plan::numbers::Count;
use plan::{Network, Outbound};
use wasmtime_wasi::sockets::SocketAddrUse;

use crate::command::say;
use crate::counts::Counts;
use crate::ending::line;

/// Addresses that names were resolved to, and peers that have sent something, which are remembered; the oldest go. A
/// guest cannot make the host remember more.
const REMEMBERED: usize = 1024;
/// Refusals that are told; every one once.
const TOLD: usize = 64;

/// Lets pass what the policy allows. All instances of a container share one.
pub(crate) struct Gate {
    network: Network,
    /// An address, and the rule whose name it was resolved from.
    resolved: Mutex<Recent<(IpAddr, usize)>>,
    /// Who has sent a datagram: it may be answered.
    peers: Mutex<Recent<SocketAddr>>,
    told: Mutex<HashSet<String>>,
    counts: Arc<Counts>,
}

/// The most recent of what came, without repetitions.
struct Recent<T>(VecDeque<T>);

impl<T: PartialEq> Recent<T> {
    const fn new() -> Self {
        Self(VecDeque::new())
    }

    fn add(&mut self, one: T) {
        if self.0.back() == Some(&one) {
            return;
        }
        self.0.retain(|other| *other != one);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    pub(crate) fn new(network: &Network, counts: &Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            network: network.clone(),
            resolved: Mutex::new(Recent::new()),
            peers: Mutex::new(Recent::new()),
            told: Mutex::default(),
            counts: Arc::clone(counts),
        })
    }

    /// Whether there is nothing to watch over.
    pub(crate) fn is_open(&self) -> bool {
        self.network == Network::default()
    }

    /// Whether the guest may have sockets at all.
    pub(crate) fn has_sockets(&self) -> bool {
        self.network.listen || self.sends()
    }

    /// Whether anything may go out.
    pub(crate) fn sends(&self) -> bool {
        match &self.network.outbound {
            Outbound::All => true,
            Outbound::Listed(rules) => !rules.is_empty(),
        }
    }

    /// Whether a name may be looked up. What is an address already is not looked up.
    pub(crate) fn lets_look_up(&self, name: &str) -> bool {
        let is_address = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok();
        is_address
            || self.network.name_lookup && self.has_sockets()
            || self.listed(name).next().is_some()
    }

    /// Notes that a name has this address, so that a rule for the name means the address.
    pub(crate) fn resolved(&self, name: &str, address: IpAddr) {
        for index in self.listed(name) {
            lock(&self.resolved).add((address.to_canonical(), index));
        }
    }

    fn listed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let rules = match &self.network.outbound {
            Outbound::All => &[][..],
            Outbound::Listed(rules) => rules,
        };
        rules
            .iter()
            .enumerate()
            .filter(move |(_, rule)| rule.names(name))
            .map(|(index, _)| index)
    }

    /// Whether something may be sent there.
    pub(crate) fn lets_out(&self, address: SocketAddr) -> bool {
        let rules = match &self.network.outbound {
            Outbound::All => return true,
            Outbound::Listed(rules) => rules,
        };
        if rules.iter().any(|rule| rule.allows(address)) {
            return true;
        }
        let ip = address.ip().to_canonical();
        lock(&self.resolved)
            .0
            .iter()
            .any(|(known, index)| *known == ip && rules[*index].allows_port(address.port()))
    }

    /// Whether a socket may be used so; tells what it refuses.
    pub(crate) fn lets(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        let (verb, lets) = match purpose {
            // Every socket is bound before it sends: what matters is what comes after.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => return self.has_sockets(),
            SocketAddrUse::TcpListen => ("listening on", self.network.listen),
            SocketAddrUse::TcpAccept => return self.network.listen,
            SocketAddrUse::TcpConnect => ("connecting to", self.lets_out(address)),
            SocketAddrUse::UdpSend => {
                let answers = || self.network.listen && lock(&self.peers).0.contains(&address);
                ("sending to", self.lets_out(address) || answers())
            }
            SocketAddrUse::UdpReceive => {
                if !self.network.listen {
                    // An answer to what was sent.
                    return self.lets_out(address);
                }
                if self.network.outbound != Outbound::All {
                    lock(&self.peers).add(address);
                }
                return true;
            }
        };
        if !lets {
            self.tell(&format!("{verb} {address}"));
        }
        lets
    }

    /// Counts what was refused, and says it on the container's standard error, once.
    pub(crate) fn tell(&self, what: &str) {
        self.counts.one(Count::NetworkRefused);
        let mut told = lock(&self.told);
        if told.len() < TOLD && told.insert(what.to_owned()) {
            drop(told);
            say(&line(&format!(
                "{what} is refused by the settings sampan.dev/network and sampan.dev/allow-outbound"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use plan::Rule;

    use super::*;

    fn gate(listen: bool, name_lookup: bool, rules: Option<&[&str]>) -> Arc<Gate> {
        let outbound = match rules {
            None => Outbound::All,
            Some(rules) => Outbound::Listed(
                rules
                    .iter()
                    .map(|text| Rule::parse(text).expect("a rule"))
                    .collect(),
            ),
        };
        let network = Network {
            listen,
            outbound,
            name_lookup,
        };
        Gate::new(&network, &Counts::none())
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_listener_answers_but_does_not_ask() {
        let gate = gate(true, true, Some(&[]));
        let peer = at("10.0.0.1:5000");
        assert!(gate.lets(at("0.0.0.0:80"), SocketAddrUse::TcpListen));
        assert!(gate.lets(peer, SocketAddrUse::TcpAccept));
        assert!(!gate.lets(peer, SocketAddrUse::TcpConnect));
        assert!(!gate.lets(peer, SocketAddrUse::UdpSend));
        assert!(gate.lets(peer, SocketAddrUse::UdpReceive));
        assert!(gate.lets(peer, SocketAddrUse::UdpSend));
        assert!(!gate.lets(at("10.0.0.1:5001"), SocketAddrUse::UdpSend));
    }

    #[test]
    fn a_client_asks_but_does_not_listen() {
        let gate = gate(false, true, Some(&["10.0.0.0/8:53"]));
        assert!(gate.has_sockets());
        assert!(!gate.lets(at("0.0.0.0:80"), SocketAddrUse::TcpListen));
        assert!(gate.lets(at("10.0.0.1:53"), SocketAddrUse::UdpSend));
        assert!(gate.lets(at("10.0.0.1:53"), SocketAddrUse::UdpReceive));
        assert!(!gate.lets(at("11.0.0.1:53"), SocketAddrUse::UdpReceive));
    }

    #[test]
    fn an_address_is_allowed_once_its_name_was_resolved() {
        let gate = gate(true, false, Some(&["*.example.com:443", "db"]));
        let ip: IpAddr = "192.0.2.7".parse().expect("an address");
        assert!(!gate.lets_out(at("192.0.2.7:443")));
        gate.resolved("example.com", ip);
        assert!(!gate.lets_out(at("192.0.2.7:443")));
        gate.resolved("API.example.com.", ip);
        assert!(gate.lets_out(at("192.0.2.7:443")));
        assert!(gate.lets_out(at("[::ffff:192.0.2.7]:443")));
        assert!(!gate.lets_out(at("192.0.2.7:80")));
        // With lookups off, those of the list are left.
        assert!(
            gate.lets_look_up("db")
                && gate.lets_look_up("a.example.com")
                && gate.lets_look_up("192.0.2.1")
        );
        assert!(!gate.lets_look_up("example.org"));
    }

    #[test]
    fn each_refusal_is_counted_and_told_once() {
        let refused = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&refused);
        let counts = Counts::new(move |word, by| {
            assert_eq!(word, Count::NetworkRefused.word());
            *lock(&counted) += by;
        });
        let network = Network {
            listen: false,
            outbound: Outbound::Listed(Vec::new()),
            name_lookup: false,
        };
        let gate = Gate::new(&network, &counts);
        for _ in 0..3 {
            assert!(!gate.lets(at("10.0.0.1:80"), SocketAddrUse::TcpConnect));
        }
        assert_eq!(*lock(&refused), 3);
        assert_eq!(lock(&gate.told).len(), 1);
    }

    #[test]
    fn nothing_is_nothing() {
        let gate = gate(false, true, Some(&[]));
        assert!(!gate.has_sockets() && !gate.lets_look_up("example.com"));
        assert!(!gate.lets(at("0.0.0.0:0"), SocketAddrUse::TcpBind));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let gate = gate(true, true, Some(&["*.example.com"]));
        for number in 0..=REMEMBERED {
            let ip = std::net::Ipv4Addr::from_bits(u32::try_from(number).expect("small"));
            gate.resolved("a.example.com", ip.into());
        }
        assert!(!gate.lets_out(at("0.0.0.0:80")), "the oldest is forgotten");
        assert!(gate.lets_out(at("0.0.0.1:80")));
    }
}
