//! Compiles the guest to wasm, by the compiler that builds everything else. It has no dependencies, so the compiler
//! alone is enough: no network, no second lock file, the same bytes every time.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let output = PathBuf::from(variable("OUT_DIR")).join("sampan.wasm");
    let version = variable("CARGO_PKG_VERSION");
    let status = Command::new(variable("RUSTC"))
        // From here, so that no path of this machine gets into the program.
        .current_dir(&source)
        .args(["--edition=2024", "--crate-name=sampan", "--crate-type=bin"])
        .args(["--target=wasm32-wasip1", "--cap-lints=allow"])
        .args([
            "-C",
            "opt-level=z",
            "-C",
            "lto=fat",
            "-C",
            "codegen-units=1",
        ])
        .args(["-C", "panic=abort", "-C", "strip=symbols"])
        .arg("-o")
        .arg(&output)
        .arg("src/guest.rs")
        .env("SAMPAN_VERSION", version)
        // They are meant for the host's programs.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!(
            "compile the debug guest for wasm32-wasip1 (is the target installed? rustup target add wasm32-wasip1): \
             {status}"
        ),
        Err(error) => panic!("start the compiler for the debug guest: {error}"),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
