//! Beside wasmtime's own command line, of the version that the engine is: where both mean the same, both do the same.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tool_tests::Tool;

use crate::path;

/// Guests and their arguments. What ends badly is left out: codes and words of our own are those of containers.
const ROWS: [(&str, &[&str]); 28] = [
    ("hello.wasm", &["one", "two words", ""]),
    ("hello.wat", &[]),
    ("hello-p2.wasm", &["one"]),
    ("hello-p3.wasm", &["one"]),
    ("hello-p3.wasm", &["exit", "9"]),
    ("hello-go.wasm", &["exit", "3"]),
    ("hello-go.wasm", &["one"]),
    ("hello-c.wasm", &["exit", "4"]),
    ("hello-c.wasm", &["one"]),
    ("probe.wasm", &["args", "x"]),
    ("probe.wasm", &["env"]),
    ("probe.wasm", &["pwd"]),
    ("probe.wasm", &["preopens"]),
    ("probe.wasm", &["ls", "/data"]),
    ("probe.wasm", &["cat", "/data/file"]),
    ("probe.wasm", &["write", "/data/new", "text"]),
    ("probe.wasm", &["rm", "/data/file"]),
    ("probe.wasm", &["cat", "/data/out"]),
    ("probe.wasm", &["cat", "/../../etc/passwd"]),
    ("probe.wasm", &["lines"]),
    ("probe.wasm", &["both"]),
    ("probe.wasm", &["exit", "121"]),
    ("probe-p2.wasm", &["args", "x"]),
    ("probe-p2.wasm", &["exit-code", "9"]),
    ("exit-7.wasm", &[]),
    ("gc.wasm", &[]),
    ("simd.wasm", &[]),
    ("big.wasm", &["jq", ".a", "{\"a\": 1}"]),
];

/// What containerd sets where an image sets nothing.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) async fn does_the_same() -> Result<()> {
    let tool = Tool::new()?;
    let Some(wasmtime) = wasmtime(&tool)? else {
        return Ok(());
    };
    for (guest, args) in ROWS {
        let program = path(guest)?;
        let mut ended = Vec::new();
        for side in ["ours", "theirs"] {
            let place = tool.dir().join(format!("{side}-{}", ended.len()));
            let (root, data) = (place.join("root"), place.join("data"));
            std::fs::create_dir_all(&data)?;
            // A volume's own directory shows in the one above it.
            std::fs::create_dir_all(root.join("data"))?;
            std::fs::write(data.join("file"), "content\n")?;
            std::os::unix::fs::symlink("/etc/passwd", data.join("out"))?;
            let output = if side == "ours" {
                let dir = format!("{}:/data", data.display());
                let mut line = vec!["run", &program, "--entry", "/app.wasm"];
                line.extend(["--env", "GREETING=hello", "--dir", &dir, "--"]);
                line.extend(args);
                tool.run(&line)?
            } else {
                Command::new(&wasmtime)
                    .args(["run", "--argv0", "/app.wasm"])
                    .args(["--env", PATH, "--env", "GREETING=hello"])
                    .arg("--dir")
                    .arg(format!("{}::/", root.display()))
                    .arg("--dir")
                    .arg(format!("{}::/data", data.display()))
                    .arg(&program)
                    .args(args)
                    .env_clear()
                    .output()
                    .context("run wasmtime")?
            };
            std::fs::remove_dir_all(&place)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            ended.push((
                text(&output.stdout),
                text(&output.stderr),
                output.status.code(),
            ));
        }
        ensure!(
            ended[0] == ended[1],
            "{guest} {args:?}: sampan run {:?}, wasmtime {:?}",
            ended[0],
            ended[1]
        );
    }
    Ok(())
}

/// The program, if it has been built, and is of the engine's version.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn wasmtime(tool: &Tool) -> Result<Option<PathBuf>> {
    let program = path("exit-7.wasm")?;
    let file = tool.dir().join("x.cwasm").display().to_string();
    let (compiled, _) = tool.json(&["compile", &program, "--to", &file])?;
    let engine = compiled["engine"].as_str().context("an engine")?;
    let version = engine.split('-').next().unwrap_or_default();
    let found = tools::cache_dir()?.join(format!("tools/wasmtime-{version}/bin/wasmtime"));
    if found.exists() {
        return Ok(Some(found));
    }
    eprintln!("skipped: wasmtime {version} is not there: `cargo xtask bench-http` builds it");
    Ok(None)
}
