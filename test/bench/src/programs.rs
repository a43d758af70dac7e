//! The programs that are measured: `programs/hello.rs`, built with the toolchain that built the bench, and real ones of
//! `test/guests`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const SOURCE: &str = include_str!("../programs/hello.rs");

/// How a program shows that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// A line on its standard output.
    Line,
    /// The answer to a request to `/`.
    Answer,
}

/// A guest.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What it is called where it is a file.
    pub(crate) file: String,
    /// `wasip1` or `wasip2`, for the image's config.
    pub(crate) os: &'static str,
    pub(crate) sign: Sign,
    pub(crate) wasm: Vec<u8>,
}

/// The guest of the contestants in its forms.
pub(crate) struct Hello {
    /// Static, for the host's architecture.
    pub(crate) native: Vec<u8>,
    /// A WASI 0.1 module.
    pub(crate) module: Program,
    /// A WASI 0.2 component.
    pub(crate) component: Program,
}

/// Name, file in the guests' directory, `os`, sign: programs beside the two of `hello.rs`.
const REAL: [(&str, &str, &str, Sign); 6] = [
    ("C", "hello-c.wasm", "wasip1", Sign::Line),
    ("Go", "hello-go.wasm", "wasip1", Sign::Line),
    ("Go, 21 MB", "big.wasm", "wasip1", Sign::Line),
    ("Python, 30 MB", "hello-py.wasm", "wasip2", Sign::Line),
    ("JavaScript http", "http-js.wasm", "wasip2", Sign::Answer),
    ("Python http", "http-py.wasm", "wasip2", Sign::Answer),
];

impl Hello {
    /// Compiles into `directory`.
    pub(crate) fn build(directory: &Path) -> Result<Self> {
        let source = directory.join("hello.rs");
        std::fs::write(&source, SOURCE).with_context(|| format!("write {source:?}"))?;
        let native_target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let program = |name, os, target| {
            anyhow::Ok(Program {
                name,
                file: "hello.wasm".to_owned(),
                os,
                sign: Sign::Line,
                wasm: compile(&source, target, directory.join(format!("hello-{os}.wasm")))?,
            })
        };
        Ok(Self {
            native: compile(&source, &native_target, directory.join("hello"))?,
            module: program("hello", "wasip1", "wasm32-wasip1")?,
            component: program("hello 0.2", "wasip2", "wasm32-wasip2")?,
        })
    }
}

/// The real programs that are in `guests`, and the names of those that are not.
pub(crate) fn real(guests: &Path) -> Result<(Vec<Program>, Vec<&'static str>)> {
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (name, file, os, sign) in REAL {
        let path = guests.join(file);
        if !path.exists() {
            missing.push(name);
            continue;
        }
        there.push(Program {
            name,
            file: file.to_owned(),
            os,
            sign,
            wasm: std::fs::read(&path).with_context(|| format!("read {path:?}"))?,
        });
    }
    Ok((there, missing))
}

fn compile(source: &Path, target: &str, output: PathBuf) -> Result<Vec<u8>> {
    let built = Command::new("rustc")
        .args(["--edition=2024", "--crate-name=hello", "-O"])
        .args(["-C", "panic=abort", "-C", "strip=symbols", "-C", "lto=fat"])
        .args(["--target", target, "-o"])
        .args([&output, source])
        .output()
        .context("start rustc")?;
    ensure!(
        built.status.success(),
        "compile the guest for {target} (is the target installed? rustup target add {target}): {}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::read(&output).with_context(|| format!("read {output:?}"))
}

/// The same program under another digest, which nobody has compiled: with a section of `words` that means nothing.
pub(crate) fn never_seen(wasm: &[u8], words: &str) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    let mut content = vec![NAME.len() as u8];
    content.extend(NAME);
    content.extend(words.as_bytes());
    let mut fresh = wasm.to_vec();
    // Modules and components alike may end with custom sections (id 0, length as LEB128, name, anything).
    fresh.push(0);
    let mut length = content.len();
    while length >= 0x80 {
        fresh.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    fresh.push(length as u8);
    fresh.extend(content);
    fresh
}

#[cfg(test)]
mod tests {
    use super::never_seen;

    #[test]
    fn a_section_of_any_length_is_added() {
        let empty = b"\0asm\x01\0\0\0";
        assert_eq!(never_seen(empty, "x")[8..], *b"\0\x07\x05benchx");
        let long = never_seen(empty, &"x".repeat(300));
        // 306 = 2 * 128 + 50.
        assert_eq!(long[8..11], [0, 50 | 0x80, 2]);
        assert_eq!(long.len(), 8 + 3 + 306);
    }
}
