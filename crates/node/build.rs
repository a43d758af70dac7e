//! Assembles the canary: the WebAssembly module that is run to try an installation.
#![forbid(unsafe_code)]

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=src/canary/canary.wat");
    let output =
        std::env::var("OUT_DIR").unwrap_or_else(|error| panic!("cargo sets OUT_DIR: {error}"));
    let wasm = wat::parse_file("src/canary/canary.wat")
        .unwrap_or_else(|error| panic!("assemble the canary: {error}"));
    let path = PathBuf::from(output).join("canary.wasm");
    std::fs::write(&path, wasm).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
