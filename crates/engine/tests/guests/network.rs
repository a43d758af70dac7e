//! What the policy lets a guest reach.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use plan::{Network, Outbound, Rule};

use crate::process::{Ended, Guest};
use crate::servers::Server;

/// Somebody to connect to: answers each connection with a line and closes it.
struct Neighbour(SocketAddr);

impl Neighbour {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accept");
                // Who is refused never comes so far.
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self(address)
    }
}

fn network(listen: bool, name_lookup: bool, rules: &[String]) -> Network {
    let rules = rules
        .iter()
        .map(|text| Rule::parse(text).unwrap_or_else(|| panic!("{text}")));
    Network {
        listen,
        outbound: Outbound::Listed(rules.collect()),
        name_lookup,
    }
}

fn probe(network: Network, args: &[&str]) -> Ended {
    Guest::built("probe-p2")
        .plan(move |plan| plan.network = network)
        .args(args)
        .run()
}

fn said(ended: &Ended) -> Vec<&str> {
    ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("sampan: "))
        .collect()
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn sockets_go_where_the_list_says() {
    let there = Neighbour::start("welcome\n").0;
    let port = there.port().to_string();
    let connect = |rules: &[String]| {
        probe(
            network(true, true, rules),
            &["tcp-connect", "127.0.0.1", &port],
        )
    };
    for rule in [there.to_string(), "127.0.0.0/8".to_owned()] {
        let ended = connect(&[rule]);
        assert!(ended.out().contains("welcome"), "{ended:?}");
        assert!(said(&ended).is_empty(), "{ended:?}");
    }
    for rules in [
        vec![],
        vec![
            "127.0.0.1:1".to_owned(),
            "10.0.0.0/8".to_owned(),
            "localhost".to_owned(),
        ],
    ] {
        let ended = connect(&rules);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.out().contains("ACCES"), "{ended:?}");
        let said = said(&ended);
        assert_eq!(said.len(), 1, "{ended:?}");
        assert!(
            said[0].contains(&there.to_string()) && said[0].contains("allow-outbound"),
            "{ended:?}"
        );
    }
    let ended = probe(network(true, true, &[]), &["udp-send", "127.0.0.1", "9"]);
    assert!(ended.out().contains("ACCES"), "{ended:?}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn a_name_in_the_list_means_what_it_resolves_to() {
    let there = Neighbour::start("welcome\n").0;
    let port = there.port().to_string();
    let rule = format!("localhost:{port}");
    // Also with lookups off, because it is listed.
    for name_lookup in [true, false] {
        let ended = probe(
            network(true, name_lookup, std::slice::from_ref(&rule)),
            &["tcp-connect", "localhost", &port],
        );
        assert!(ended.out().contains("welcome"), "{name_lookup}: {ended:?}");
    }
    let ended = probe(network(true, false, &[rule]), &["resolve", "other.invalid"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        said(&ended)[0].contains("looking up `other.invalid`"),
        "{ended:?}"
    );
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn without_a_network_there_is_no_socket() {
    for args in [
        &["tcp-connect", "127.0.0.1", "9"][..],
        &["tcp-listen", "0"],
        &["udp-send", "127.0.0.1", "9"],
        &["resolve", "localhost"],
    ] {
        let ended = probe(network(false, true, &[]), args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
    }
    // Who only asks does not listen.
    let ended = probe(
        network(false, true, &["127.0.0.0/8".to_owned()]),
        &["tcp-listen", "127.0.0.1", "0"],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(said(&ended)[0].contains("listening on"), "{ended:?}");
}

#[test]
#[ignore = "needs the guests of `cargo xtask guests`"]
fn requests_go_where_sockets_go() {
    let there = Neighbour::start(
        "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nwelcome",
    )
    .0;
    let port = there.port();
    let fetch = |rules: &[String], name_lookup, authority: &str| {
        let network = network(true, name_lookup, rules);
        let mut server =
            Server::start(Guest::built("http-p2").plan(move |plan| plan.network = network));
        let answer = server.get(&format!("/fetch?authority={authority}&path=/"));
        let again = server.get(&format!("/fetch?authority={authority}&path=/"));
        assert_eq!(answer.text(), again.text());
        server.signal(nix::sys::signal::Signal::SIGTERM);
        server.wait();
        (answer, server.stderr())
    };
    for (rule, authority) in [
        (there.to_string(), there.to_string()),
        (format!("localhost:{port}"), format!("localhost:{port}")),
        // The name is not in the list, its address is.
        ("127.0.0.0/8".to_owned(), format!("localhost:{port}")),
    ] {
        let (answer, stderr) = fetch(&[rule, "::1".to_owned()], true, &authority);
        assert!(
            answer.text().contains("welcome"),
            "{authority}: {answer:?} {stderr}"
        );
        assert_eq!(stderr, "");
    }
    for (rules, name_lookup, authority, code) in [
        (
            vec!["10.0.0.0/8".to_owned()],
            true,
            there.to_string(),
            "DestinationIpProhibited",
        ),
        (
            vec!["10.0.0.0/8".to_owned()],
            true,
            format!("localhost:{port}"),
            "DestinationIpProhibited",
        ),
        (
            vec!["127.0.0.0/8".to_owned()],
            false,
            format!("localhost:{port}"),
            "HttpRequestDenied",
        ),
        (vec![], true, there.to_string(), "HttpRequestDenied"),
    ] {
        let (answer, stderr) = fetch(&rules, name_lookup, &authority);
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(
            answer.text().contains(code),
            "{authority} {rules:?}: {answer:?}"
        );
        let told: Vec<_> = stderr
            .lines()
            .filter(|line| line.contains("is refused"))
            .collect();
        assert_eq!(told.len(), 1, "once: {stderr}");
        assert!(told[0].contains(&authority), "{stderr}");
    }
}
