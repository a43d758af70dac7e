//! Numbers and incidents: what a script does to a node is what the node tells.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Containerd, Task, TaskBuilder, free_address, image, listening, until};
use node_tests::Program;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

const DEADLINE: Duration = Duration::from_secs(60);
/// Requests of the script, on so many connections at once.
const CONNECTIONS: usize = 8;

/// All series by their name with labels.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, f64>);

impl Told {
    async fn by(address: SocketAddr) -> Result<Self> {
        let text = harness::get(address, "/metrics").await?.text();
        ensure!(text.ends_with("# EOF\n"), "it is whole: {text}");
        let mut told = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').context("a value")?;
            let twice = told.insert(name.to_owned(), value.parse()?);
            ensure!(twice.is_none(), "{name} is told twice");
        }
        Ok(Self(told))
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What differs from what is expected.
    fn unlike(&self, expected: &[(String, f64)]) -> Vec<String> {
        expected
            .iter()
            .filter(|(name, value)| (self.get(name) - value).abs() > 1e-9)
            .map(|(name, value)| format!("{name} is {} and not {value}", self.get(name)))
            .collect()
    }

    fn series_of(&self, pod: &str) -> Vec<&String> {
        let label = format!("pod=\"{pod}\"");
        self.0.keys().filter(|name| name.contains(&label)).collect()
    }
}

/// Waits until a node tells all of this: what is counted after an answer was sent may come a moment later.
async fn told(address: SocketAddr, expected: &[(String, f64)]) -> Result<Told> {
    let mut last = Told::default();
    let same = until(
        "the numbers to be those of the script",
        DEADLINE,
        async || {
            last = Told::by(address).await?;
            Ok(last.unlike(expected).is_empty().then_some(()))
        },
    )
    .await;
    ensure!(same.is_ok(), "{:#?}\n{last:#?}", last.unlike(expected));
    Ok(last)
}

fn total(name: &str, value: f64) -> (String, f64) {
    (format!("sampan_{name}"), value)
}

async fn imported(containerd: &Containerd, guest: &str) -> Result<String> {
    let reference = format!("example.test/{}:v1", guest.replace('.', "-"));
    let content = image::bytecode_alliance(harness::guest(guest)?);
    containerd.import(&reference, &content).await?;
    Ok(reference)
}

/// As CRI names the containers of a pod, without a pod of CRI.
fn of_pod<'a>(task: TaskBuilder<'a>, pod: &str) -> TaskBuilder<'a> {
    task.annotation("io.kubernetes.cri.sandbox-namespace", "shop")
        .annotation("io.kubernetes.cri.sandbox-name", pod)
        .annotation("io.kubernetes.cri.sandbox-uid", "uid-1")
        .annotation("io.kubernetes.cri.container-name", "app")
}

/// Asks for paths, one after the other, on one connection; returns how often each code came.
async fn ask(address: SocketAddr, paths: Vec<String>) -> Result<BTreeMap<u16, u64>> {
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(address).await?);
    let mut codes = BTreeMap::new();
    for path in paths {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (mut line, mut code, mut length) = (String::new(), None, None);
        let mut chunked = false;
        loop {
            line.clear();
            ensure!(
                stream.read_line(&mut line).await? > 0,
                "an answer to {path}"
            );
            let lower = line.trim().to_ascii_lowercase();
            if code.is_none() {
                code = lower.split(' ').nth(1).map(str::parse::<u16>).transpose()?;
            } else if lower.is_empty() {
                break;
            } else if let Some(value) = lower.strip_prefix("content-length: ") {
                length = Some(value.parse::<usize>()?);
            } else if lower == "transfer-encoding: chunked" {
                chunked = true;
            }
        }
        if chunked {
            loop {
                line.clear();
                stream.read_line(&mut line).await?;
                let size = usize::from_str_radix(line.trim(), 16)?;
                stream.read_exact(&mut vec![0; size + 2]).await?;
                if size == 0 {
                    break;
                }
            }
        } else {
            let length = length.with_context(|| format!("the length of the answer to {path}"))?;
            stream.read_exact(&mut vec![0; length]).await?;
        }
        *codes.entry(code.context("a code")?).or_default() += 1;
    }
    Ok(codes)
}

/// What waits to be told of pods, taken as the node program takes it.
fn incidents(containerd: &Containerd) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(containerd.sampan_run().join(".incidents"))? {
        let path = entry?.path();
        all.push(serde_json::from_slice(&fs::read(&path)?)?);
        fs::remove_file(path)?;
    }
    Ok(all)
}

async fn stopped(mut task: Task<'_>, signal: u32) -> Result<u32> {
    task.kill(signal).await?;
    let status = task.wait().await?;
    task.delete().await?;
    Ok(status)
}

#[tokio::test]
async fn every_number_is_what_was_done() -> Result<()> {
    if !node_tests::able()? {
        return Ok(());
    }
    // Less than any two programs need: what is idle goes when another one comes.
    let containerd = Containerd::builder()
        .without_cri()
        .sampan(json!({ "store": { "max-bytes": 1 } }))
        .start()
        .await?;
    let (mut watching, address) = Program::watching(&containerd.socket()).started().await?;
    // Who reads what goes wrong is this test.
    fs::create_dir_all(containerd.sampan_run().join(".incidents"))?;

    // Two starts of one program, compiled once.
    let hello = imported(&containerd, "hello.wasm").await?;
    for _ in 0..2 {
        let output = containerd.task(&hello).args(["/"]).run().await?;
        ensure!(output.status == 0, "{output:?}");
    }
    // Another one, which pushes the first out: codes that are usual and one that is not, traps, kills.
    let probe = imported(&containerd, "probe.wasm").await?;
    let run = async |arguments: &[&str], expected: u32| -> Result<()> {
        let arguments = ["/"].iter().chain(arguments).copied();
        let task = of_pod(containerd.task(&probe), "probe").args(arguments);
        let output = task.run().await?;
        ensure!(output.status == expected, "{output:?}");
        Ok(())
    };
    for _ in 0..2 {
        run(&["exit", "3"], 3).await?;
    }
    run(&["exit", "42"], 42).await?;
    for _ in 0..3 {
        run(&["trap"], 121).await?;
    }
    run(&["stack-overflow"], 121).await?;
    for _ in 0..2 {
        let mut task = containerd
            .task(&probe)
            .args(["/", "sleep", "600000"])
            .create()
            .await?;
        task.start().await?;
        ensure!(stopped(task, 9).await? == 137);
    }
    // The same with fuel is another program: the code that counts it.
    let fuelled = of_pod(containerd.task(&probe), "fuelled")
        .annotation("sampan.dev/fuel", "1000000")
        .args(["/", "spin"]);
    let output = fuelled.run().await?;
    ensure!(output.status == 123, "{output:?}");
    // One that imports what nobody has: compiled, and refused.
    let unknown = imported(&containerd, "unknown-import.wasm").await?;
    let refused = of_pod(containerd.task(&unknown), "unknown")
        .args(["/"])
        .create()
        .await;
    ensure!(refused.is_err(), "it imports what nobody has");

    // 10,000 requests and more, among them some that trap, and calls that are refused.
    let server = imported(&containerd, "http-p2.wasm").await?;
    let listens = free_address()?;
    let mut task = of_pod(containerd.task(&server), "web")
        .host_network()
        .args(["/"])
        .annotation("sampan.dev/http-listen", &listens.to_string())
        .annotation("sampan.dev/network", "listen")
        .create()
        .await?;
    task.start().await?;
    listening(listens).await?;
    let mut asked = Vec::new();
    for connection in 0..CONNECTIONS {
        let mut paths = vec!["/".to_owned(); 1100];
        paths.extend(vec!["/status/404".to_owned(); 80]);
        paths.extend(vec!["/status/418".to_owned(); 40]);
        paths.extend(vec!["/status/503".to_owned(); 30]);
        if connection == 0 {
            paths.extend(vec!["/trap".to_owned(); 5]);
            paths.extend(vec![
                "/fetch?scheme=http&authority=127.0.0.1:9&path=/"
                    .to_owned();
                7
            ]);
        }
        asked.push(tokio::spawn(ask(listens, paths)));
    }
    let mut codes = BTreeMap::<u16, u64>::new();
    for answers in asked {
        for (code, count) in answers.await?? {
            *codes.entry(code).or_default() += count;
        }
    }
    let expected = BTreeMap::from([
        (200, 8800),
        (404, 640),
        (418, 320),
        (500, 5),
        (502, 7),
        (503, 240),
    ]);
    assert_eq!(codes, expected);

    let web = |name: &str, more: &str| {
        format!("sampan_container_{name}{{namespace=\"shop\",pod=\"web\",container=\"app\"{more}}}")
    };
    let mut expected: Vec<(String, f64)> = [
        ("containers{role=\"wasm\"}", 1.0),
        ("supervisors{state=\"alive\"}", 1.0),
        ("supervisors{state=\"orphaned\"}", 0.0),
        ("containers_created_total{role=\"wasm\"}", 13.0),
        ("create_failures_total{cause=\"invalid\"}", 1.0),
        ("create_failures_total{cause=\"internal\"}", 0.0),
        ("start_duration_seconds_count{phase=\"create\"}", 13.0),
        ("start_duration_seconds_count{phase=\"start\"}", 13.0),
        ("start_duration_seconds_count{phase=\"image\"}", 14.0),
        ("start_duration_seconds_count{phase=\"artifact\"}", 14.0),
        ("start_duration_seconds_count{phase=\"runner\"}", 13.0),
        ("exits_total{code=\"0\"}", 2.0),
        ("exits_total{code=\"3\"}", 2.0),
        ("exits_total{code=\"other\"}", 1.0),
        ("exits_total{code=\"121\"}", 4.0),
        ("exits_total{code=\"123\"}", 1.0),
        ("exits_total{code=\"137\"}", 2.0),
        ("traps_total{kind=\"unreachable\"}", 8.0),
        ("traps_total{kind=\"stack\"}", 1.0),
        ("traps_total{kind=\"out_of_time\"}", 1.0),
        ("traps_total{kind=\"memory\"}", 0.0),
        ("traps_total{kind=\"other\"}", 0.0),
        ("fuel_used_total", 1_000_000.0),
        ("oom_kills_total", 0.0),
        // hello, probe, probe with fuel, unknown, http; each but the first pushes the one before out.
        ("store_misses_total", 5.0),
        ("store_hits_total", 9.0),
        ("store_evictions_total", 4.0),
        ("compile_duration_seconds_count", 5.0),
        ("compile_failures_total", 0.0),
        ("incidents_dropped_total", 0.0),
        ("log_lines_dropped_total", 0.0),
    ]
    .into_iter()
    .map(|(name, value)| total(name, value))
    .collect();
    for (code, count) in [
        ("200", 8800),
        ("404", 640),
        ("4xx", 320),
        ("500", 5),
        ("502", 7),
        ("503", 240),
    ] {
        expected.push((
            web("http_requests_total", &format!(",code=\"{code}\"")),
            f64::from(count),
        ));
    }
    expected.extend([
        (web("http_request_duration_seconds_count", ""), 10_012.0),
        (web("http_requests_in_flight", ""), 0.0),
        (web("traps_total", ",kind=\"unreachable\""), 5.0),
        (web("network_refusals_total", ""), 7.0),
    ]);
    let seen = told(address, &expected).await?;
    ensure!(seen.get(&web("memory_bytes", "")) > 1e5, "{seen:#?}");
    ensure!(seen.get(&web("cpu_seconds_total", "")) > 0.01, "{seen:#?}");
    ensure!(
        seen.get(&web("http_instances_total", "")) >= 1.0,
        "{seen:#?}"
    );
    ensure!(
        seen.get("sampan_compiled_guest_bytes_total") > 1e5,
        "{seen:#?}"
    );
    ensure!(
        seen.get("sampan_compiled_artifact_bytes_total") > 1e5,
        "{seen:#?}"
    );
    ensure!(seen.get("sampan_start_duration_seconds_sum{phase=\"create\"}") > 0.0);

    // What went wrong with pods has been left, and nothing of what went right.
    let mut left: Vec<(String, String)> = Vec::new();
    for incident in incidents(&containerd)? {
        let text = |path: &str| {
            incident
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let message = text("/message").context("a message")?;
        ensure!(
            !message.contains('\n') && message.len() <= 1000,
            "{message}"
        );
        let reason = text("/reason").context("a reason")?;
        ensure!(
            text("/labels/namespace").as_deref() == Some("shop"),
            "{incident}"
        );
        ensure!(
            reason != "CreateFailed" || message.contains("imports"),
            "{incident}"
        );
        left.push((text("/labels/pod").context("a pod")?, reason));
    }
    left.sort();
    let pair = |pod: &str, reason: &str| (pod.to_owned(), reason.to_owned());
    let mut wrong = vec![pair("fuelled", "OutOfTime")];
    wrong.extend(vec![pair("probe", "Trap"); 4]);
    wrong.push(pair("unknown", "CreateFailed"));
    assert_eq!(left, wrong);

    // What is gone has no series; what it did stays in the sums.
    ensure!(!seen.series_of("web").is_empty());
    ensure!(stopped(task, 15).await? == 0);
    let after = told(
        address,
        &[
            total("containers{role=\"wasm\"}", 0.0),
            total("supervisors{state=\"alive\"}", 0.0),
            total("exits_total{code=\"0\"}", 3.0),
            total("traps_total{kind=\"unreachable\"}", 8.0),
            total("fuel_used_total", 1_000_000.0),
        ],
    )
    .await?;
    assert_eq!(after.series_of("web"), Vec::<&String>::new());
    ensure!(incidents(&containerd)?.is_empty());

    watching.kill().await?;
    containerd.assert_clean().await
}

/// A supervisor that is killed takes its guests along: what they did is counted by who cleans up, once.
#[tokio::test]
async fn what_a_killed_supervisor_has_counted_is_not_lost() -> Result<()> {
    if !node_tests::able()? {
        return Ok(());
    }
    let containerd = Containerd::builder().without_cri().start().await?;
    let (mut watching, address) = Program::watching(&containerd.socket()).started().await?;
    let server = imported(&containerd, "http-p2.wasm").await?;
    let listens = free_address()?;
    let mut task = of_pod(containerd.task(&server), "web")
        .host_network()
        .args(["/"])
        .annotation("sampan.dev/http-listen", &listens.to_string())
        .create()
        .await?;
    task.start().await?;
    listening(listens).await?;
    ask(listens, vec!["/trap".to_owned(); 3]).await?;
    let traps = total("traps_total{kind=\"unreachable\"}", 3.0);
    told(
        address,
        &[traps.clone(), total("supervisors{state=\"alive\"}", 1.0)],
    )
    .await?;

    let supervisor = harness::process::parent_of(task.pid())?;
    harness::process::signal(supervisor, nix::sys::signal::Signal::SIGKILL)?;
    // containerd calls `delete` for it.
    let after = told(
        address,
        &[
            traps,
            total("exits_total{code=\"137\"}", 1.0),
            total("containers{role=\"wasm\"}", 0.0),
            total("supervisors{state=\"alive\"}", 0.0),
            total("supervisors{state=\"orphaned\"}", 0.0),
        ],
    )
    .await?;
    assert_eq!(after.series_of("web"), Vec::<&String>::new());
    watching.kill().await?;
    until("containerd to delete the task", DEADLINE, async || {
        Ok(match task.delete_task().await {
            Ok(_) => Some(()),
            Err(status) if format!("{status:?}").contains("NotFound") => Some(()),
            Err(_) => None,
        })
    })
    .await?;
    task.remove_records().await?;
    containerd.assert_clean().await
}
