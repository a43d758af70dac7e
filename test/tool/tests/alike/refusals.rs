//! What would be refused: `inspect` says it beforehand, Create and `run` with the same words.

use anyhow::{Context, Result, ensure};
use tool_tests::Tool;

use crate::{containerd, layer, path};

/// Guests and entry points that Create refuses.
pub(crate) const ROWS: [(&str, &str); 18] = [
    ("unknown-import.wasm", "/"),
    ("unknown-p1-import.wasm", "/"),
    ("wrong-import-type.wasm", "/"),
    ("wasi-unstable.wasm", "/"),
    ("future-interface.wasm", "/"),
    ("unknown-interface.wasm", "/"),
    ("no-start.wasm", "/"),
    ("start-with-parameters.wasm", "/"),
    ("no-run.wasm", "/"),
    ("exports.wasm", "/"),
    ("exports.wasm", "/#missing"),
    ("exports.wasm", "/#not_a_function"),
    ("exports.wasm", "/#add"),
    ("run-me.wasm", "/"),
    ("run-me.wasm", "/#missing"),
    ("run-me.wasm", "/#add"),
    ("legacy-exceptions.wasm", "/"),
    ("http-p2.wasm", "/#missing"),
];

pub(crate) async fn are_foreseen() -> Result<()> {
    let Some(containerd) = containerd().await? else {
        return Ok(());
    };
    let tool = Tool::new()?;
    for (guest, entry) in ROWS {
        let image = layer(&containerd, guest).await?;
        let created = containerd.task(&image).args([entry]).create().await;
        let refusal = created
            .err()
            .with_context(|| format!("{guest} {entry}: Create has taken it"))?;
        let refusal = format!("{refusal:#}");

        let path = path(guest)?;
        let foreseen = foreseen(&tool, &path, entry)?;
        ensure!(
            refusal.contains(&foreseen),
            "{guest} {entry}: inspect says {foreseen:?}, Create {refusal:?}"
        );
        let ran = tool.run(&["run", &path, "--entry", entry])?;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        ensure!(
            said.contains(&foreseen) && said.lines().count() == 1,
            "{guest} {entry}: inspect says {foreseen:?}, run {said:?}"
        );
        let code = ran.status.code();
        ensure!(
            matches!(code, Some(126 | 127)),
            "{guest} {entry}: run ends with {code:?}"
        );
    }
    containerd.assert_clean().await
}

/// The reason that `inspect` gives.
fn foreseen(tool: &Tool, path: &str, entry: &str) -> Result<String> {
    let output = tool.run(&["inspect", path, "--entry", entry, "--output", "json"])?;
    let code = output.status.code();
    ensure!(
        code == Some(1),
        "{path} {entry}: inspect ends with {code:?}"
    );
    // Of what is no valid program there is no report.
    let (bytes, field) = if output.stdout.is_empty() {
        (&output.stderr, "error")
    } else {
        (&output.stdout, "refused")
    };
    let report: serde_json::Value = serde_json::from_slice(bytes)?;
    let reason = report[field].as_str().context("inspect says why")?;
    Ok(reason
        .strip_prefix(&format!("{path}: "))
        .unwrap_or(reason)
        .to_owned())
}
