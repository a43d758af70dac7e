use std::collections::BTreeMap;
use std::path::Path;

use plan::numbers::{BYTES, Durations, PAGE};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, bytes).expect("written");
}

fn page(words: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    for (word, value) in words {
        bytes[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

fn told(numbers: Numbers) -> String {
    let mut registry = Registry::with_prefix("sampan");
    registry.register_collector(Box::new(numbers));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string");
    text
}

fn stat(started: u64) -> String {
    format!("1 (a) b) S 1{} {started} 0 0\n", " 0".repeat(17))
}

/// A node with a pod, whose holder's supervisor is dead, and a container of none.
fn node(root: &Path) -> Numbers {
    let run = root.join("run/sampan");
    write(&root.join("proc/11/stat"), stat(500));
    let record = |id: &str, labels: &str, supervisor: &str, cgroup: &str| {
        let text = format!(
            r#"{{"pid": 7, "start_time": 9, "native": false, "more": 1, "supervisor": {supervisor},
                "labels": {labels}, "counted": {{"memory": "{cgroup}", "cpu": "{cgroup}"}}}}"#
        );
        write(&run.join(id).join("record.json"), text);
    };
    let alive = r#"{"pid": 11, "start_time": 500}"#;
    record(
        "k8s.io/c1",
        r#"{"namespace": "shop", "pod": "web-1", "uid": "u", "container": "web"}"#,
        alive,
        "/sys/fs/cgroup/pod/c1",
    );
    record(
        "k8s.io/p1",
        r#"{"namespace": "shop", "pod": "web-1", "uid": "u", "holder": true}"#,
        r#"{"pid": 12, "start_time": 500}"#,
        "/sys/fs/cgroup/pod/c1",
    );
    record("default/alone", "{}", alive, "/none");
    write(&run.join("default/broken/record.json"), "{");
    write(&run.join("a-file"), "");
    let cgroup = root.join("sys/fs/cgroup/pod/c1");
    write(&cgroup.join("memory.current"), "4096\n");
    write(&cgroup.join("memory.max"), "max\n");
    write(
        &cgroup.join("cpu.stat"),
        "usage_usec 1500000\nuser_usec 1\n",
    );
    write(
        &run.join("k8s.io/c1").join(PAGE),
        page(&[
            (Count::Asked.word(), 3),
            (Count::answered(200).word(), 1),
            (Count::answered(418).word(), 1),
            (Count::Trapped(Trap::Memory).word(), 2),
            (
                Durations::REQUEST.of(std::time::Duration::from_millis(3))[0].0,
                2,
            ),
        ]),
    );
    write(
        &run.join(TOTALS),
        page(&[
            (Total::Trapped(Trap::Memory).word(), 5),
            (Total::ended(0).word(), 4),
            (Total::ended(77).word(), 1),
        ]),
    );
    let numbers = Numbers {
        proc: root.join("proc"),
        place: Mutex::default(),
    };
    numbers.are_in(run, root.to_owned());
    numbers
}

#[test]
fn each_number_is_told_with_its_labels() {
    let root = tempfile::tempdir().expect("a directory");
    let text = told(node(root.path()));
    let web = r#"{namespace="shop",pod="web-1",container="web""#;
    for line in [
        r#"sampan_containers{role="wasm"} 2.0"#.to_owned(),
        r#"sampan_containers{role="pod"} 1.0"#.to_owned(),
        r#"sampan_supervisors{state="alive"} 1.0"#.to_owned(),
        r#"sampan_supervisors{state="orphaned"} 1.0"#.to_owned(),
        r#"sampan_exits_total{code="0"} 4"#.to_owned(),
        r#"sampan_exits_total{code="other"} 1"#.to_owned(),
        // What has gone and what runs.
        r#"sampan_traps_total{kind="memory"} 7"#.to_owned(),
        format!("sampan_container_traps_total{web},kind=\"memory\"}} 2"),
        format!("sampan_container_memory_bytes{web}}} 4096.0"),
        format!("sampan_container_cpu_seconds_total{web}}} 1.5"),
        format!("sampan_container_http_requests_total{web},code=\"200\"}} 1"),
        format!("sampan_container_http_requests_total{web},code=\"4xx\"}} 1"),
        format!("sampan_container_http_requests_in_flight{web}}} 1.0"),
        format!("sampan_container_http_request_duration_seconds_count{web}}} 2"),
        "sampan_store_hits_total 0".to_owned(),
        "sampan_compile_duration_seconds_count 0".to_owned(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }
    // No limit, no series; a guest that serves nobody has none of servers.
    assert!(!text.contains("sampan_container_memory_limit_bytes{"));
    // The pod's own.
    assert!(!text.contains(r#"container="""#));
    assert!(!text.contains(r#"container="alone",code"#), "{text}");
    assert!(!text.contains(r#"code="1""#), "{text}");
}

#[test]
fn what_is_gone_has_no_series_and_sums_never_shrink() {
    let root = tempfile::tempdir().expect("a directory");
    let numbers = node(root.path());
    let before = numbers.read();
    let memory = Trap::ALL
        .iter()
        .position(|trap| *trap == Trap::Memory)
        .expect("it is one");
    assert_eq!(before.sums.traps[memory], 7);
    let run = root.path().join("run/sampan");
    // Its page is gone and the totals do not have it yet.
    fs::remove_dir_all(run.join("k8s.io/c1")).expect("removed");
    assert_eq!(numbers.read().sums.traps[memory], 7);
    assert!(!told(numbers).contains("container=\"web\""));
    // Totals of another file begin anew.
    let numbers = node(root.path());
    numbers.read();
    let other = run.join("other");
    write(&other, page(&[]));
    fs::rename(other, run.join(TOTALS)).expect("replaced");
    assert_eq!(numbers.read().sums.traps[memory], 2);
}

#[test]
fn before_anything_is_known_there_is_nothing() {
    let text = told(Numbers::default());
    assert!(
        text.contains("sampan_containers{role=\"wasm\"} 0.0"),
        "{text}"
    );
    assert!(!text.contains("namespace="), "{text}");
}

/// A file of rules, as Prometheus reads it; an unknown key is a mistake there too.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for", default)]
    lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn of_checkout(path: &str) -> String {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(checkout.join(path)).expect(path)
}

fn rules() -> Vec<Rule> {
    let text = of_checkout("charts/sampan/files/rules.yaml");
    let rules: Rules = serde_saphyr::from_str(&text).expect("rules");
    assert!(rules.groups.iter().all(|group| !group.name.is_empty()));
    rules
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect()
}

/// The queries of a dashboard's panels, with Grafana's variables filled in.
fn queries() -> Vec<String> {
    let text = of_checkout("charts/sampan/files/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().expect("a query").to_owned())
        .map(|query| query.replace("$__rate_interval", "5m"))
        .collect()
}

#[test]
fn rules_and_queries_are_promql() {
    let rules = rules();
    let page = of_checkout("docs/observability.md");
    for rule in &rules {
        let name = &rule.alert;
        assert!(
            page.contains(&format!("| `{name}` |")),
            "{name} is not documented"
        );
        assert!(
            ["info", "warning"].contains(&rule.labels["severity"].as_str())
                && ["summary", "description"]
                    .iter()
                    .all(|text| !rule.annotations[*text].is_empty()),
            "{rule:?}"
        );
        assert!(
            rule.lasting
                .as_ref()
                .is_none_or(|text| promql_parser::util::parse_duration(text).is_ok()),
            "{rule:?}"
        );
    }
    let queries = queries();
    assert!(rules.len() > 10 && queries.len() > 20);
    for query in rules.into_iter().map(|rule| rule.expr).chain(queries) {
        if let Err(error) = promql_parser::parser::parse(&query) {
            panic!("{query}: {error}");
        }
    }
    assert!(
        promql_parser::parser::parse("rate(x)").is_err(),
        "it can tell"
    );
}

/// Every family in the documentation, and every name that dashboard and rules ask for.
#[test]
fn what_is_documented_and_asked_for_is_what_is_told() {
    let page = of_checkout("docs/observability.md");
    assert!(
        page.contains(&table()),
        "docs/observability.md needs this table:\n{}",
        table()
    );
    let text = told(Numbers::default()) + &crate::metrics::Metrics::default().text();
    let asked = rules().into_iter().map(|rule| rule.expr).chain(queries());
    for query in asked {
        let names = query
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("sampan_"));
        let mut some = false;
        for name in names {
            some = true;
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            assert!(
                text.contains(&format!("# TYPE {family} ")),
                "{query} asks for {name}, which nobody tells"
            );
        }
        assert!(some, "{query} asks for nothing of ours");
    }
}
