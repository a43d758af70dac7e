//! Guests that are components: Rust, Python and JavaScript for WASI 0.2 and 0.3.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Place, module, npm, python, wit};
use crate::step;

pub(super) const RUST: &[&str] = &[
    "hello-p2.wasm",
    "probe-p2.wasm",
    "http-p2.wasm",
    "hello-p3.wasm",
    "http-p3.wasm",
    "otel.wasm",
    "run-me.wasm",
];

/// The WASI that the JavaScript engine in componentize-js 0.23 was built for: it exports exactly this version of the
/// handler, whatever the world asks for.
const JAVASCRIPT_WASI: &str = "0.2.10";

/// WASI 0.3 guests are built for wasm32-wasip2 too: Rust has no target of its own for them, and the crate brings the
/// interfaces.
pub(super) fn rust(place: &Place, out: &Path) -> Result<()> {
    let target = "wasm32-wasip2";
    module::cargo(
        place,
        target,
        &[
            "hello", "hello-p3", "http-p2", "http-p3", "otel", "probe", "run-me",
        ],
    )?;
    for guest in RUST {
        // Programs keep their name; what was built as a library has underscores, and no level to tell apart.
        let built = match *guest {
            "hello-p2.wasm" => "hello.wasm".to_owned(),
            "probe-p2.wasm" => "probe.wasm".to_owned(),
            library => library.replace('-', "_"),
        };
        module::take(place, target, &built, &out.join(guest))?;
    }
    Ok(())
}

pub(super) fn python(place: &Place, out: &Path) -> Result<()> {
    for (guest, world) in [("http-py", "http"), ("hello-py", "command")] {
        componentize(place, guest, world, &out.join(guest))?;
        let built = out.join(guest).join("built.wasm");
        fs::rename(&built, out.join(guest).with_extension("wasm"))
            .with_context(|| format!("take {}", built.display()))?;
    }
    Ok(())
}

/// Makes `directory`, and in it `built.wasm` of the Python program `guest`.
fn componentize(place: &Place, guest: &str, world: &str, directory: &Path) -> Result<()> {
    let packages = python::packages(place)?;
    let sources = place.sources.join(guest);
    let wit = wit::directory(
        place,
        &sources.join("world.wit"),
        wit::VERSION,
        &directory.join("wit"),
    )?;
    // A copy: the builder runs the program once, which leaves compiled files beside it.
    let program = directory.join("program");
    fs::create_dir(&program).with_context(|| format!("create {}", program.display()))?;
    fs::copy(sources.join("app.py"), program.join("app.py")).context("copy app.py")?;
    let mut command = packages.script("componentize_py", "script");
    command
        .arg("--wit-path")
        .arg(wit)
        .args(["--world", world, "componentize", "--python-path"])
        .arg(program)
        .args(["app", "--output"])
        .arg(directory.join("built.wasm"));
    step::run(&format!("{guest} (Python; half a minute)"), &mut command)
}

pub(super) fn javascript(place: &Place, out: &Path) -> Result<()> {
    let sources = place.sources.join("http-js");
    let packages = npm::packages(place)?;
    let wit = wit::directory(
        place,
        &sources.join("world.wit"),
        JAVASCRIPT_WASI,
        &out.join("wit"),
    )?;
    let mut command = packages.script("@bytecodealliance/componentize-js/src/cli.js");
    command
        // The name that is given here is the one in the guest's stack traces.
        .current_dir(&sources)
        .arg("app.js")
        .arg("--wit")
        .arg(wit)
        .args(["--world-name", "http", "--out"])
        .arg(out.join("http-js.wasm"));
    step::run("http-js (JavaScript; half a minute)", &mut command)
}
