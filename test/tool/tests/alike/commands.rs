//! Guests that run once and end.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use harness::Containerd;
use serde_json::json;
use tool_tests::{Tool, left_behind};

use crate::{containerd, layer, path, refusals, servers};

/// A guest, its command line, and the container's memory limit in bytes.
type Row = (&'static str, &'static [&'static str], Option<u64>);

const LIMIT: Option<u64> = Some(64 << 20);

/// Every guest that runs to an end, and each way to end.
const ROWS: [Row; 47] = [
    ("hello.wasm", &["/hello.wasm", "one", "two words", ""], None),
    ("hello.wat", &["/"], None),
    ("hello-p2.wasm", &["/hello.wasm", "one"], None),
    ("hello-p3.wasm", &["/hello.wasm", "one"], None),
    ("hello-p3.wasm", &["/", "exit", "9"], None),
    ("hello-p3.wasm", &["/", "fail"], None),
    ("hello-p3.wasm", &["/", "trap"], None),
    ("hello-go.wasm", &["/hello", "exit", "3"], None),
    ("hello-c.wasm", &["/hello", "exit", "4"], None),
    ("hello-py.wasm", &["/"], None),
    ("probe.wasm", &["/", "args"], None),
    ("probe.wasm", &["/", "env"], None),
    ("probe.wasm", &["/", "pwd"], None),
    ("probe.wasm", &["/", "preopens"], None),
    ("probe.wasm", &["/", "ls", "/"], None),
    ("probe.wasm", &["/", "write", "/x", "y"], None),
    ("probe.wasm", &["/", "cat", "/../../etc/passwd"], None),
    ("probe.wasm", &["/", "symlink", "/etc/passwd", "/x"], None),
    ("probe.wasm", &["/", "tty"], None),
    ("probe.wasm", &["/", "lines"], None),
    ("probe.wasm", &["/", "flood", "100000"], None),
    ("probe.wasm", &["/", "both"], None),
    ("probe.wasm", &["/", "exit", "121"], None),
    ("probe.wasm", &["/", "exit", "200"], None),
    ("probe.wasm", &["/", "trap"], None),
    ("probe.wasm", &["/", "panic"], None),
    ("probe.wasm", &["/", "stack-overflow"], None),
    ("probe.wasm", &["/", "oom"], LIMIT),
    ("probe-p2.wasm", &["/", "initial-cwd"], None),
    ("probe-p2.wasm", &["/", "exit", "9"], None),
    ("probe-p2.wasm", &["/", "exit-code", "9"], None),
    ("probe-p2.wasm", &["/", "oom"], LIMIT),
    ("exports.wasm", &["/#say", "x"], None),
    ("exports.wasm", &["/#fails"], None),
    ("start-and-exports.wasm", &["/#say"], None),
    ("run-me.wasm", &["/#run-me"], None),
    ("run-me.wasm", &["/#refuses"], None),
    ("run-me.wasm", &["/#fails"], None),
    ("config.wasm", &["/#main"], None),
    ("on-term.wasm", &["/#goodbye"], None),
    ("exit-7.wasm", &["/"], None),
    ("div0.wasm", &["/"], None),
    ("out-of-bounds.wasm", &["/"], None),
    ("start-section.wasm", &["/"], None),
    ("threads.wasm", &["/"], None),
    ("huge-memory.wasm", &["/"], LIMIT),
    ("big.wasm", &["/", "jq", ".a", "{\"a\": 1}"], None),
];

/// It is created, and its memory cannot be made.
const NOT_STARTED: &str = "threads.wasm";

/// Guests that say hello if a feature of WebAssembly is there.
const FEATURES: [&str; 6] = [
    "gc.wasm",
    "exceptions.wasm",
    "memory64.wasm",
    "tail-call.wasm",
    "simd.wasm",
    "relaxed-simd.wasm",
];

/// What it wrote, and its exit code.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    stdout: String,
    stderr: String,
    code: u32,
}

pub(crate) async fn end_alike() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    let features = FEATURES.map(|guest| -> Row { (guest, &["/"], None) });
    for (guest, args, memory) in ROWS.into_iter().chain(features) {
        let inside = in_container(&containerd, guest, args, memory).await?;
        // It will be created, and that is what `inspect` says before.
        let (report, code) = tool.json(&["inspect", &path(guest)?, "--entry", args[0]])?;
        let starts = guest != NOT_STARTED;
        ensure!(
            code == Some(i32::from(!starts)) && report["runs"].is_string() == starts,
            "{guest} {args:?}: inspect says {report:#}"
        );
        ensure!(
            starts || !matches!(inside.code, 0),
            "{guest}: it was not to start: {inside:?}"
        );
        let unmet = report["imports"].as_array().into_iter().flatten();
        let unmet: Vec<_> = unmet
            .filter(|import| {
                !import["answer"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with("provided")
            })
            .collect();
        ensure!(unmet.is_empty(), "{guest}: inspect says {unmet:?}");
        let beside = by_the_tool(&tool, guest, args, memory)?;
        ensure!(
            inside == beside,
            "{guest} {args:?}: in a container {inside:?}, by the tool {beside:?}"
        );
    }
    ensure!(left_behind(&tool)?.is_empty(), "{:?}", left_behind(&tool)?);
    containerd.assert_clean().await
}

async fn in_container(
    containerd: &Containerd,
    guest: &str,
    args: &[&str],
    memory: Option<u64>,
) -> Result<Ended> {
    let image = layer(containerd, guest).await?;
    let mut task = containerd
        .task(&image)
        .args(args.iter().copied())
        .env("GREETING", "hello");
    if let Some(memory) = memory {
        task = task
            .spec(move |spec| spec["linux"]["resources"]["memory"] = json!({ "limit": memory }));
    }
    let output = task.run().await?;
    Ok(Ended {
        stdout: output.stdout(),
        stderr: output.stderr(),
        code: output.status,
    })
}

fn by_the_tool(tool: &Tool, guest: &str, args: &[&str], memory: Option<u64>) -> Result<Ended> {
    let path = path(guest)?;
    let memory = memory.map(|memory| memory.to_string());
    let mut line = vec!["run", &path, "--entry", args[0], "--env", "GREETING=hello"];
    if let Some(memory) = &memory {
        line.extend(["--memory", memory]);
    }
    line.push("--");
    line.extend(&args[1..]);
    let output = tool.run(&line)?;
    Ok(Ended {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output
            .status
            .code()
            .and_then(|code| code.try_into().ok())
            .unwrap_or(u32::MAX),
    })
}

/// Directories, read-only and writable: names, rights, and what links can reach.
pub(crate) async fn see_the_same_volumes() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    let image = layer(&containerd, "probe.wasm").await?;
    let program = path("probe.wasm")?;
    for (name, readonly) in [("rw", false), ("ro", true)] {
        for args in [
            &["preopens"][..],
            &["ls", "/"],
            &["ls", "/data/deep"],
            &["cat", "/data/deep/file"],
            &["write", "/data/deep/new", "text"],
            &["opentrunc", "/data/deep/file"],
            &["rm", "/data/deep/file"],
            &["cat", "/data/deep/out"],
            &["rename", "/data/deep/file", "/data/deep/moved"],
        ] {
            let mut ended = Vec::new();
            for side in ["container", "tool"] {
                let place = tool.dir().join(format!(
                    "{side}-{name}-{}",
                    args.join("-").replace('/', "_")
                ));
                std::fs::create_dir(&place)?;
                std::fs::write(place.join("file"), "content\n")?;
                std::os::unix::fs::symlink("/etc/passwd", place.join("out"))?;
                ended.push(if side == "container" {
                    let options = [if readonly { "ro" } else { "rw" }];
                    let task = containerd
                        .task(&image)
                        .args(["/"].into_iter().chain(args.iter().copied()))
                        .mount(&place, "/data/deep", options);
                    let output = task.run().await?;
                    (
                        output.stdout(),
                        output.stderr(),
                        i32::try_from(output.status)?,
                    )
                } else {
                    let mut dir = format!("{}:/data/deep", place.display());
                    if readonly {
                        dir.push_str(":ro");
                    }
                    let mut line = vec!["run", &program, "--entry", "/", "--dir", &dir, "--"];
                    line.extend(args);
                    let output = tool.run(&line)?;
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let code = output.status.code().unwrap_or(-1);
                    (text(&output.stdout), text(&output.stderr), code)
                });
            }
            ensure!(ended[0] == ended[1], "{name} {args:?}: {ended:?}");
        }
    }
    containerd.assert_clean().await
}

/// A guest that nobody compares would be forgotten.
pub(crate) async fn all_have_rows() -> Result<()> {
    let rows = ROWS.iter().map(|(guest, ..)| *guest);
    let known: BTreeSet<&str> = rows
        .chain(FEATURES)
        .chain(refusals::ROWS.iter().map(|(guest, _)| *guest))
        .chain(servers::GUESTS)
        .collect();
    let built = std::fs::read_dir(tools::cache_dir()?.join("guests"))?;
    let mut missing = Vec::new();
    for entry in built {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let program = name.ends_with(".wasm") || name.ends_with(".wat");
        if program && !known.contains(name.as_str()) {
            missing.push(name);
        }
    }
    ensure!(
        missing.is_empty(),
        "guests that no test compares: {missing:?}"
    );
    Ok(())
}
