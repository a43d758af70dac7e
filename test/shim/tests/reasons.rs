//! Why a container ended, or could not begin: the exit code, the line on standard error, the names of the functions. The
//! rows are those of the table in `docs/reference.md`; what fails before the container exists is in `bad_input.rs`.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use harness::{Output, Version};
use serde_json::json;
use shim_tests::{containerd, layer};

/// Two functions deep, with a stack of calls that nobody can inline away: they are not optimised by us.
const NAMED: &str = r#"(module
    (memory (export "memory") 1)
    (func $reads_too_far (param i32) (drop (i32.load (local.get 0))))
    (func $outer (call $reads_too_far (i32.const 0x7fffffff)))
    (func (export "_start") (call $outer)))"#;

/// Wants a gigabyte, and ends as a language does that did not get it.
const GREEDY: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "_start")
        (if (i32.eq (memory.grow (i32.const 16384)) (i32.const -1)) (then (unreachable)))))"#;

/// Exits with a code of its own that Sampan uses for something else, and says nothing.
const EXITS_121: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 121))))"#;

/// One line begins with `sampan: ` and this, and it is the only one that begins so.
fn told(output: &Output, code: u32, beginning: &str) {
    let stderr = output.stderr();
    let lines: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("sampan: "))
        .collect();
    assert_eq!(output.status, code, "{stderr}");
    assert!(
        lines.len() == 1 && lines[0].starts_with(beginning),
        "no single line {beginning:?} in {stderr:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_names_the_functions() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = containerd.import_text("named", NAMED).await?;
    let output = containerd.task(&image).args(["/app.wat"]).run().await?;
    told(
        &output,
        121,
        "trap: out of bounds memory access at reads_too_far",
    );
    let stderr = output.stderr();
    let frames: Vec<&str> = stderr.lines().skip(1).map(str::trim).collect();
    assert_eq!(frames[..2], ["0: reads_too_far", "1: outer"], "{stderr}");

    // A module without names has numbers.
    let bare = layer(&containerd, "probe.wasm").await?;
    let output = containerd.task(&bare).args(["/", "trap"]).run().await?;
    told(
        &output,
        121,
        "trap: wasm `unreachable` instruction executed",
    );
    assert!(
        output.stderr().contains("0: function "),
        "{}",
        output.stderr()
    );
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guests_own_code_says_nothing() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = containerd.import_text("exits", EXITS_121).await?;
    let output = containerd.task(&image).args(["/app.wat"]).run().await?;
    assert_eq!((output.status, output.stderr().as_str()), (121, ""));
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_was_refused_is_told_from_a_trap() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let image = containerd.import_text("greedy", GREEDY).await?;
    let output = containerd
        .task(&image)
        .args(["/app.wat"])
        .spec(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 }))
        .run()
        .await?;
    told(
        &output,
        122,
        "out of memory: the limit of 58720256 bytes was reached: wasm `unreachable`",
    );
    // With no limit it gets what it wants.
    let output = containerd.task(&image).args(["/app.wat"]).run().await?;
    assert_eq!(output.status, 0, "{}", output.stderr());
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_opened_is_named() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let shut = containerd.scratch().dir().join("shut");
    std::fs::create_dir(&shut)?;
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o700))?;
    for (guest, args) in [
        ("probe.wasm", &["/", "exit", "0"][..]),
        ("http-p2.wasm", &["/"]),
    ] {
        let image = layer(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(args.iter().copied())
            .mount(&shut, "/shut", ["rbind"])
            .user(1234, 1234)
            .run()
            .await?;
        told(
            &output,
            126,
            "cannot open the directory /shut for the guest: ",
        );
    }
    containerd.assert_clean().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() -> Result<()> {
    let Some(containerd) = containerd(Version::V2).await? else {
        return Ok(());
    };
    let taken = TcpListener::bind("127.0.0.1:0").context("take a port")?;
    let address = taken.local_addr()?.to_string();
    for guest in ["http-p2.wasm", "http-p3.wasm"] {
        let image = layer(&containerd, guest).await?;
        let output = containerd
            .task(&image)
            .args(["/"])
            .host_network()
            .annotation("sampan.dev/http-listen", &address)
            .run()
            .await?;
        told(
            &output,
            126,
            &format!("cannot listen on {address}: Address"),
        );
    }
    containerd.assert_clean().await
}
