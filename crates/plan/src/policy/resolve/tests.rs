use super::*;
use crate::policy::{KNOBS, Settings};
use crate::{NodeConfig, Proposal};

fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings::new(
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn resolve(pod: &[(&str, &str)], class: &[(&str, &str)], node: &str) -> Result<Policy, String> {
    let node = NodeConfig::parse(node).map_err(|error| error.to_string())?;
    let (pod, class) = (settings(pod), settings(class));
    Policy::resolve(Layers {
        pod: &pod,
        class: &class,
        node: &node,
    })
    .map_err(|faults| {
        let lines: Vec<_> = faults
            .iter()
            .map(|(field, reason)| format!("{field}: {reason}"))
            .collect();
        lines.join("; ")
    })
}

fn rules(texts: &[&str]) -> Outbound {
    Outbound::Listed(
        texts
            .iter()
            .map(|text| Rule::parse(text).expect("a rule"))
            .collect(),
    )
}

#[test]
fn the_table_is_sound() {
    let policy = resolve(&[], &[], "").expect("the defaults are values");
    assert_eq!(policy.network, Network::default());
    assert_eq!(policy.serving, Serving::default());
    assert_eq!(policy.engine, EngineSettings::default());
    assert_eq!(
        (policy.stack, policy.fuel, policy.execs, policy.rootfs),
        (512 << 10, None, 100, RootAccess::ReadWrite)
    );
    let mut names: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KNOBS.len(), "a name comes twice");
    // Every knob is read: a value that none of them takes is refused for all but the two that take any text.
    for knob in KNOBS {
        let wrong = resolve(&[], &[(knob.name, "no such value ..")], "");
        assert_eq!(
            wrong.is_ok(),
            knob.name == "http-listen",
            "{}: {wrong:?}",
            knob.name
        );
    }
}

#[test]
fn the_pod_comes_before_the_class_and_the_class_before_the_node() {
    let node = "[defaults]\nrequest-timeout = '1s'\n";
    let timeout = |pod: &[_], class: &[_]| {
        resolve(pod, class, node)
            .expect("valid")
            .serving
            .request_timeout
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(timeout(&[], &[]), seconds(1));
    assert_eq!(timeout(&[], &[("request-timeout", "2s")]), seconds(2));
    assert_eq!(
        timeout(&[("request-timeout", "3s")], &[("request-timeout", "2s")]),
        seconds(3)
    );
    assert_eq!(timeout(&[("request-timeout", "none")], &[]), None);
}

#[test]
fn a_ceiling_lowers_what_nobody_asked_for_and_refuses_what_somebody_did() {
    let node = "[ceilings]\nrequest-timeout = '30s'\nmax-request-body = '1Mi'\nmax-concurrent-requests = 10\nrootfs = 'ro'\n";
    let policy = resolve(&[], &[], node).expect("valid");
    assert_eq!(
        policy.serving.request_timeout,
        Some(Duration::from_secs(30))
    );
    assert_eq!(policy.serving.max_body, Some(1 << 20));
    assert_eq!(policy.serving.max_requests, 10);
    assert_eq!(policy.rootfs, RootAccess::ReadOnly);
    let error = resolve(
        &[("request-timeout", "60s"), ("rootfs", "rw")],
        &[
            ("max-concurrent-requests", "11"),
            ("max-request-body", "none"),
        ],
        node,
    )
    .expect_err("beyond");
    for part in [
        "annotation sampan.dev/request-timeout: `60s` is beyond the node's ceiling `30s` ([ceilings] request-timeout in /etc/sampan/config.toml)",
        "annotation sampan.dev/rootfs",
        "runtime option max-concurrent-requests: `11`",
        "runtime option max-request-body: `none`",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn unknown_and_ill_typed_settings_are_named_all_at_once() {
    let error = resolve(
        &[("netwrk", "none"), ("fuel", "much"), ("pooling", "false")],
        &[("reqest-timeout", "1s"), ("request-timeout", "1")],
        "",
    )
    .expect_err("wrong");
    for part in [
        "annotation sampan.dev/netwrk: does not exist",
        "annotation sampan.dev/fuel: `much` is not number, or none",
        "annotation sampan.dev/pooling: is for the runtime options",
        "runtime option reqest-timeout: does not exist",
        "runtime option request-timeout: `1` is not duration",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn network_and_the_list_make_one_answer() {
    let network = |pod: &[_], node| resolve(pod, &[], node).expect("valid").network;
    let closed = Network {
        listen: false,
        outbound: rules(&[]),
        name_lookup: true,
    };
    assert_eq!(network(&[("network", "none")], ""), closed);
    assert_eq!(
        network(&[("network", "listen")], ""),
        Network {
            listen: true,
            ..closed.clone()
        }
    );
    let list = ("allow-outbound", "api.example.com:443, 10.0.0.0/8");
    let listed = rules(&["api.example.com:443", "10.0.0.0/8"]);
    assert_eq!(
        network(&[list], ""),
        Network {
            listen: true,
            outbound: listed.clone(),
            name_lookup: true
        }
    );
    assert_eq!(
        network(&[list, ("network", "none")], ""),
        Network {
            listen: false,
            outbound: listed,
            name_lookup: true
        }
    );
    // An empty list is a list.
    assert_eq!(network(&[("allow-outbound", "")], "").outbound, rules(&[]));
    // A pod that closes its network is not opened by a default of the node.
    let node = "[defaults]\nallow-outbound = ['a.example.com']\n";
    assert_eq!(network(&[], node).outbound, rules(&["a.example.com"]));
    assert_eq!(network(&[("network", "none")], node), closed);
}

#[test]
fn the_ceiling_of_the_network_cannot_be_passed_by_a_list() {
    let listen = "[ceilings]\nnetwork = 'listen'\n";
    assert_eq!(
        resolve(&[], &[], listen).expect("valid").network.outbound,
        rules(&[])
    );
    let error = resolve(&[("allow-outbound", "a.example.com")], &[], listen).expect_err("beyond");
    assert!(error.contains("allow-outbound: `a.example.com` is beyond the node's ceiling `listen` ([ceilings] network"), "{error}");
    assert!(
        resolve(&[("network", "all")], &[], listen)
            .expect_err("beyond")
            .contains("`all` is beyond")
    );

    let list = "[ceilings]\nallow-outbound = ['*.example.com:443']\n";
    assert_eq!(
        resolve(&[], &[], list).expect("valid").network.outbound,
        rules(&["*.example.com:443"])
    );
    assert_eq!(
        resolve(&[("network", "none")], &[], list)
            .expect("valid")
            .network
            .outbound,
        rules(&[])
    );
    assert!(resolve(&[("allow-outbound", "a.example.com:443")], &[], list).is_ok());
    let error = resolve(
        &[("allow-outbound", "a.example.com:443,10.0.0.1")],
        &[],
        list,
    )
    .expect_err("beyond");
    assert!(
        error.contains("`10.0.0.1` is beyond the node's ceiling `*.example.com:443`"),
        "{error}"
    );
    assert!(!error.contains("a.example.com:443`"), "{error}");
}

#[test]
fn a_pod_without_a_network_cannot_serve() {
    let policy = resolve(&[("network", "none")], &[], "").expect("valid");
    assert!(
        policy
            .deaf
            .expect("a reason")
            .contains("annotation sampan.dev/network")
    );
    assert_eq!(
        resolve(&[("network", "listen")], &[], "")
            .expect("valid")
            .deaf,
        None
    );
}

#[test]
fn the_engine_is_the_classs() {
    let class = [("disable-proposals", "simd, gc,gc"), ("pooling", "false")];
    let engine = resolve(&[("fuel", "1000")], &class, "")
        .expect("valid")
        .engine;
    assert_eq!(
        engine,
        EngineSettings {
            fuel: true,
            disabled: vec![Proposal::Gc, Proposal::Simd],
            pooling: false
        }
    );
}
