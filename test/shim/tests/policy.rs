//! What a pod, a RuntimeClass and the node say about a guest: who counts, what cannot be exceeded, and what it does.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Result;
use harness::image::Rootfs;
use harness::{Containerd, Output, TaskBuilder, Version};
use prost_types::Any;
use serde_json::{Value, json};
use shim_tests::{containerd, expect, layer, refusal, rootfs};
use tonic::Code;

/// A containerd whose node has this in its file.
async fn node(table: Value) -> Result<Option<Containerd>> {
    if !harness::able()? {
        return Ok(None);
    }
    Containerd::builder()
        .without_cri()
        .sampan(table)
        .start()
        .await
        .map(Some)
}

/// Runtime options as containerd passes them on for a handler of CRI (`runtimeoptions.v1.Options`, `ConfigBody`).
fn options(toml: &str) -> Any {
    let mut value = vec![0x1a, u8::try_from(toml.len()).expect("short")];
    value.extend_from_slice(toml.as_bytes());
    Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        value,
    }
}

/// Somebody on this machine to connect to.
fn neighbour() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"welcome\n");
        }
    });
    Ok(address)
}

async fn connect(builder: TaskBuilder<'_>, there: SocketAddr) -> Result<Output> {
    let port = there.port().to_string();
    builder
        .host_network()
        .args(["/", "tcp-connect", "127.0.0.1", &port])
        .run()
        .await
}

fn welcomed(output: &Output) -> bool {
    output.stdout().contains("welcome")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_counts_before_its_class_and_the_class_before_the_node() -> Result<()> {
    let Some(containerd) = node(json!({ "defaults": { "network": "none" } })).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe-p2.wasm").await?;
    let there = neighbour()?;
    let task = || containerd.task(&image);
    let output = connect(task(), there).await?;
    assert!(!welcomed(&output) && output.status == 1, "{output:?}");
    let class = || options("network = 'all'");
    let output = connect(task().options(class()), there).await?;
    assert!(welcomed(&output), "{output:?}");
    let listen = task()
        .options(class())
        .annotation("sampan.dev/network", "listen");
    let output = connect(listen, there).await?;
    assert!(!welcomed(&output), "{output:?}");
    // The container's log says what was refused, and by what.
    let stderr = output.stderr();
    assert!(
        stderr.contains(&there.to_string()) && stderr.contains("allow-outbound"),
        "{stderr}"
    );
    let listed = task().annotation("sampan.dev/allow-outbound", &format!("10.0.0.0/8, {there}"));
    let output = connect(listed, there).await?;
    assert!(welcomed(&output), "{output:?}");
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_exceeds_the_nodes_ceilings() -> Result<()> {
    let ceilings = json!({ "ceilings": {
        "request-timeout": "30s", "max-stack": "1Mi", "network": "all", "allow-outbound": ["10.0.0.0/8"],
    } });
    let Some(containerd) = node(ceilings).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe-p2.wasm").await?;
    let task = || containerd.task(&image);
    let greedy = task()
        .annotation("sampan.dev/request-timeout", "60s")
        .annotation("sampan.dev/allow-outbound", "10.1.0.0/16,example.com:443")
        .options(options("max-stack = '2Mi'"));
    let status = refusal(greedy.args(["/"]).create().await)?;
    expect(
        &status,
        Code::InvalidArgument,
        &[
            "annotation sampan.dev/request-timeout: `60s` is beyond the node's ceiling `30s`",
            "annotation sampan.dev/allow-outbound: `example.com:443` is beyond the node's ceiling `10.0.0.0/8`",
            "runtime option max-stack: `2Mi` is beyond the node's ceiling `1Mi`",
            "[ceilings] request-timeout in /",
        ],
    );
    // Who asks for nothing gets what the ceiling gives.
    let there = neighbour()?;
    let output = connect(task(), there).await?;
    assert!(!welcomed(&output), "{output:?}");
    let modest = task().annotation("sampan.dev/request-timeout", "10s");
    assert_eq!(modest.args(["/"]).run().await?.status, 0);
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_or_is_no_value_is_named() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "probe.wasm").await?;
    let wrong = containerd
        .task(&image)
        .annotation("sampan.dev/netwrk", "none")
        .annotation("sampan.dev/request-timeout", "30")
        .annotation("sampan.dev/pooling", "false")
        .options(options("rootfs = 'sometimes'\nno-such-key = 1\n"));
    let status = refusal(wrong.args(["/"]).create().await)?;
    expect(
        &status,
        Code::InvalidArgument,
        &[
            "annotation sampan.dev/netwrk: does not exist",
            "annotation sampan.dev/request-timeout: `30` is not duration",
            "annotation sampan.dev/pooling: is for the runtime options",
            "runtime option rootfs: `sometimes` is not rw, ro or none",
            "runtime option no-such-key: does not exist",
        ],
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_what_the_policy_leaves_of_it() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = rootfs(&containerd, "probe.wasm").await?;
    let data = containerd.scratch().dir().join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("file"), "in a volume\n")?;
    let run = async |access: &str, words: &[&str]| {
        let words = std::iter::once("/app.wasm").chain(words.iter().copied());
        let task = containerd
            .task(&image)
            .mount(&data, "/data", ["rw"])
            .annotation("sampan.dev/rootfs", access);
        task.args(words).run().await
    };
    assert_eq!(run("rw", &["write", "/new", "text"]).await?.status, 0);
    let output = run("ro", &["write", "/new", "text"]).await?;
    assert_eq!(output.status, 1, "{output:?}");
    assert_eq!(run("ro", &["write", "/data/new", "text"]).await?.status, 0);
    assert_eq!(run("ro", &["preopens"]).await?.stdout(), "/\n/data\n");
    assert_eq!(run("none", &["preopens"]).await?.stdout(), "/data\n");
    assert_eq!(
        run("none", &["cat", "/data/file"]).await?.stdout(),
        "in a volume\n"
    );
    assert_eq!(run("none", &["cat", "/app.wasm"]).await?.status, 1);
    containerd.assert_clean().await
}

/// A program that serves needs to listen, and says so before it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_network_is_refused() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "http-p2.wasm").await?;
    let task = containerd
        .task(&image)
        .annotation("sampan.dev/network", "none");
    let status = refusal(task.args(["/"]).create().await)?;
    expect(
        &status,
        Code::FailedPrecondition,
        &["sampan.dev/network", "listen"],
    );
    containerd.assert_clean().await
}

/// Settings that change the code make an artifact of their own, and do not disturb the others'.
#[tokio::test(flavor = "multi_thread")]
async fn a_class_chooses_its_engine() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = layer(&containerd, "simd.wasm").await?;
    let run = || containerd.task(&image).args(["/"]);
    assert_eq!(run().run().await?.status, 0);
    let without = run().options(options("disable-proposals = ['simd']"));
    let status = refusal(without.create().await)?;
    expect(&status, Code::InvalidArgument, &["SIMD"]);
    assert_eq!(run().run().await?.status, 0);
    containerd.assert_clean().await
}

/// `wasi:config` reads the ConfigMap that `config-dir` names, else the environment; `wasi:logging` writes to the log.
#[tokio::test(flavor = "multi_thread")]
async fn configuration_comes_from_a_volume_or_the_environment() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let reference = "example.test/config:v1";
    let image = Rootfs::new()
        .file("/app.wat", include_str!("../../guests/wat/config.wat"))
        .build()?;
    containerd.import(reference, &image).await?;
    // As the kubelet mounts a ConfigMap.
    let volume = containerd.scratch().dir().join("config");
    fs::create_dir_all(volume.join("..data"))?;
    fs::write(volume.join("..data/greeting"), "from the volume")?;
    std::os::unix::fs::symlink("..data/greeting", volume.join("greeting"))?;
    let task = || {
        containerd
            .task(reference)
            .args(["/app.wat#main"])
            .env("greeting", "from the environment")
    };
    assert_eq!(
        task().run().await?.stderr(),
        "INFO test: from the environment\n"
    );
    let mounted = task()
        .mount(&volume, "/etc/app", ["ro"])
        .annotation("sampan.dev/config-dir", "/etc/app");
    assert_eq!(
        mounted.run().await?.stderr(),
        "INFO test: from the volume\n"
    );
    containerd.assert_clean().await
}
