//! What is given to the tool, and what it is made of.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use oci_client::Reference;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::chance::Chance;
use crate::registry::HEAD;

/// A kind of input.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    bases: Vec<Vec<u8>>,
    words: &'static [&'static str],
    /// From changed bytes to files and command lines.
    make: fn(&mut Chance, Vec<u8>) -> Case,
}

/// Files, and a command line that names them.
pub(crate) struct Case {
    /// Names below a directory, and contents.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) words: Vec<String>,
    /// By the tool's process, because it has streams of its own.
    alone: bool,
}

/// Stands for the address of the registry.
const REGISTRY: &str = "REGISTRY";
/// Stands for the directory with the files.
const HERE: &str = "HERE";

impl Kind {
    /// All kinds.
    pub(crate) fn all() -> Vec<Self> {
        let programs = programs();
        let layouts = vec![documents(PROGRAM).join("\x1e").into_bytes()];
        vec![
            Self {
                name: "program",
                bases: programs,
                words: &[],
                make: program,
            },
            Self {
                name: "text",
                bases: TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect(),
                words: &[
                    "(",
                    ")",
                    "(module",
                    "(component",
                    "(func",
                    "i32",
                    "\"",
                    "(;",
                    ";;",
                    "$a",
                    "(param i64)",
                    "(memory 65536)",
                    "(import \"a\" \"b\"",
                    "0x1p1000",
                    "\u{0}",
                    "\u{202e}",
                    "(@custom",
                ],
                make: text,
            },
            Self {
                name: "manifest",
                bases: manifests(),
                words: &[
                    "\n---\n",
                    "- ",
                    ": ",
                    "{",
                    "}",
                    "[",
                    "]",
                    "|\n",
                    ">\n",
                    "&a ",
                    "*a",
                    "!!binary ",
                    "<<: ",
                    "null",
                    "~",
                    "1e999",
                    "0x",
                    "$(A)",
                    "$(",
                    "kind: List\nitems:\n",
                    "\t",
                    "\"",
                    "'",
                    "#",
                    "sampan.dev/",
                    "name",
                    "containers",
                    "\u{0}",
                    "\u{feff}",
                    "-1",
                    "9223372036854775808",
                    "1Ei",
                    ".5Ki",
                ],
                make: manifest,
            },
            Self {
                name: "setting",
                bases: SETTINGS
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
                    .collect(),
                words: &[
                    "=", ",", ":", "-", "0", "none", "all", "*", "[", "]", "://", ".", "\u{7f}",
                    "Mi",
                ],
                make: setting,
            },
            Self {
                name: "node-file",
                bases: NODE_FILES
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
                    .collect(),
                words: &[
                    "[",
                    "]",
                    "=",
                    "\"",
                    "'''",
                    "\n",
                    ".",
                    "[[",
                    "1979-05-27",
                    "inf",
                    "{",
                    "}",
                    "#",
                ],
                make: node_file,
            },
            Self {
                name: "reference",
                bases: REFERENCES
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
                    .collect(),
                words: &[
                    "/",
                    ":",
                    "@",
                    "sha256:",
                    "127.0.0.1:1/",
                    "..",
                    "//",
                    "-",
                    "_",
                    "%00",
                    "[::1]",
                    "\u{e9}",
                    "?",
                    "#",
                    "localhost:1/",
                    "docker.io/",
                ],
                make: reference,
            },
            Self {
                name: "layout",
                bases: layouts.clone(),
                words: &[
                    "application/vnd.oci.image.index.v1+json",
                    "application/vnd.oci.image.manifest.v1+json",
                    "application/vnd.docker.distribution.manifest.v2+json",
                    "application/wasm",
                    "sha256:",
                    "sha512:",
                    "null",
                    "[]",
                    "{}",
                    "-1",
                    "1e400",
                    "../",
                    "\\u0000",
                    "\"layers\":",
                    "\"manifests\":",
                    "\"config\":",
                    "\"rootfs\":",
                    "\"layerDigests\":",
                    "\"data\":",
                ],
                make: layout,
            },
            Self {
                name: "registry",
                bases: layouts,
                words: &[
                    "application/vnd.oci.image.index.v1+json",
                    "sha256:",
                    "null",
                    "[]",
                    "{}",
                    "-1",
                    "\"manifests\":",
                    "\"layers\":",
                ],
                make: registry,
            },
            Self {
                name: "registry-head",
                bases: HEADS.iter().map(|text| text.as_bytes().to_vec()).collect(),
                words: &[
                    "Content-Length: ",
                    "Transfer-Encoding: chunked\r\n",
                    "Location: /v2/x/manifests/v1\r\n",
                    "WWW-Authenticate: Bearer realm=\"",
                    "Docker-Content-Digest: sha256:",
                    "\r\n",
                    "301",
                    "401",
                    "500",
                    "Content-Encoding: gzip\r\n",
                    "-1",
                ],
                make: registry_head,
            },
            Self {
                name: "archive",
                bases: archives(),
                words: &[
                    "../",
                    "/",
                    ".wh.",
                    ".wh..wh..opq",
                    "././@LongLink",
                    "path=",
                    "0000777\0",
                    "ustar",
                ],
                make: archive,
            },
            Self {
                name: "core-dump",
                bases: core_dumps(),
                words: &[
                    "core",
                    "corestack",
                    "coremodules",
                    "coreinstances",
                    "sampan",
                    "{\"functions\":[",
                    "\u{0}",
                ],
                make: core_dump,
            },
            Self {
                name: "run",
                bases: programs_that_end(),
                words: &[],
                make: run,
            },
        ]
    }

    /// One of them, changed.
    pub(crate) fn case(&self, chance: &mut Chance) -> Case {
        let bytes = chance.changed(&self.bases, self.words);
        let mut case = (self.make)(chance, bytes);
        if chance.once_in(3) {
            case.words
                .extend(["--output".to_owned(), "json".to_owned()]);
        }
        case
    }
}

impl Case {
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// Runs it, and returns the exit code; or what is wrong with how it ended.
    pub(crate) fn run(&self, place: &Path, registry: SocketAddr) -> Result<u8, String> {
        let here = place.join("case");
        let _ = std::fs::remove_dir_all(&here);
        for (name, bytes) in &self.files {
            let path = here.join(name);
            let made = path
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::write(&path, bytes));
            made.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        let (here, registry) = (here.display().to_string(), registry.to_string());
        let words = self.words.iter();
        let words: Vec<_> = words
            .map(|word| word.replace(HERE, &here).replace(REGISTRY, &registry))
            .collect();
        let (code, stdout, stderr) = if self.alone {
            in_a_process(&words, place)?
        } else {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let words = [OsString::from("sampan")]
                .into_iter()
                .chain(words.iter().map(OsString::from));
            let code = sampan::answer(words, &mut stdout, &mut stderr);
            (code, stdout, stderr)
        };
        self.judge(code, &stdout, &stderr)?;
        Ok(code)
    }

    fn judge(&self, code: u8, stdout: &[u8], stderr: &[u8]) -> Result<(), String> {
        let said = String::from_utf8_lossy(stderr);
        let json = self.words.iter().any(|word| word == "json");
        if self.alone {
            // The guest's own code and words are any.
            return match said.lines().find(|line| line.contains("panicked at")) {
                Some(line) => Err(line.to_owned()),
                None => Ok(()),
            };
        }
        if code > 3 {
            return Err(format!("code {code}: {said}"));
        }
        let warned = said.contains(": packed, but Sampan would refuse it: ");
        let lines = said.lines().count();
        let answered = !stdout.is_empty();
        if !warned && lines != usize::from(!answered) {
            return Err(format!(
                "code {code}, {lines} lines: {said:?}, answered: {answered}"
            ));
        }
        if code >= 2 && answered || code == 0 && !answered {
            return Err(format!("code {code}, answered: {answered}: {said}"));
        }
        if said.chars().any(|c| c.is_control() && c != '\n') {
            return Err(format!("control characters: {said:?}"));
        }
        if json {
            let document = if answered { stdout } else { stderr };
            if let Err(error) = serde_json::from_slice::<Value>(document) {
                return Err(format!("no JSON: {error}"));
            }
        } else {
            let text = String::from_utf8_lossy(stdout);
            let text = [
                "\u{1b}[1m",
                "\u{1b}[0m",
                "\u{1b}[31m",
                "\u{1b}[32m",
                "\u{1b}[33m",
            ]
            .iter()
            .fold(text.into_owned(), |text, style| text.replace(style, ""));
            if text.chars().any(|c| c.is_control() && c != '\n') {
                return Err("control characters in the answer".to_owned());
            }
        }
        Ok(())
    }
}

fn in_a_process(words: &[String], place: &Path) -> Result<(u8, Vec<u8>, Vec<u8>), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sampan"))
        .args(words)
        .env_clear()
        .env("XDG_CACHE_HOME", place.join("cache"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    match output
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok())
    {
        Some(code) => Ok((code, output.stdout, output.stderr)),
        None => Err(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn in_file(name: &str, bytes: Vec<u8>, words: &[&str]) -> Case {
    Case {
        files: vec![(name.to_owned(), bytes)],
        words: line(words),
        alone: false,
    }
}

fn program(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let words: &[&str] = match chance.below(8) {
        0 => &["pack", "HERE/p", "--to", "HERE/image"],
        1 => &["pack", "HERE/p", "--to", "HERE/image", "--form", "content"],
        2 => &["inspect", "HERE/p", "--entry", "#other"],
        _ => &["inspect", "HERE/p"],
    };
    in_file("p", bytes, words)
}

fn text(_: &mut Chance, bytes: Vec<u8>) -> Case {
    in_file("p.wat", bytes, &["inspect", "HERE/p.wat"])
}

fn manifest(_: &mut Chance, bytes: Vec<u8>) -> Case {
    in_file("m.yaml", bytes, &["explain", "HERE/m.yaml"])
}

/// A setting in a manifest and on a command line.
fn setting(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let text = String::from_utf8_lossy(&bytes).replace('\0', "");
    if chance.once_in(2) {
        let option = if chance.once_in(2) {
            "--set"
        } else {
            "--class-set"
        };
        let mut case = in_file("p.wat", TEXTS[0].into(), &["inspect", "HERE/p.wat", option]);
        case.words.push(text);
        return case;
    }
    let (name, value) = text.split_once('=').unwrap_or((&text, ""));
    let pod = json!({
        "kind": "Pod", "metadata": { "name": "x", "annotations": { (format!("sampan.dev/{name}")): value } },
        "spec": { "containers": [{ "name": "c", "image": "i", "command": [value] }] },
    });
    in_file(
        "m.yaml",
        pod.to_string().into_bytes(),
        &["explain", "HERE/m.yaml"],
    )
}

fn node_file(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let mut case = in_file(
        "n.toml",
        bytes,
        &["explain", "HERE/m.yaml", "--node-config", "HERE/n.toml"],
    );
    case.files.push(("m.yaml".to_owned(), PODS[0].into()));
    if chance.once_in(4) {
        case.words = line(&[
            "store",
            "ls",
            "--node-config",
            "HERE/n.toml",
            "--store",
            "HERE/none",
        ]);
    }
    case
}

/// Only what stays on this machine is asked for; the rest is looked at as a name.
fn reference(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let mut name = String::from_utf8_lossy(&bytes).replace('\0', "");
    if name.starts_with('-') {
        name.insert(0, '.');
    }
    let leaves = name.parse::<Reference>().is_ok_and(|reference| {
        let registry = reference.registry();
        !(registry == "127.0.0.1:1" || registry == "localhost:1")
    });
    if leaves {
        name.insert_str(0, "127.0.0.1:1/");
    }
    let mut case = in_file("p.wat", TEXTS[0].into(), &["inspect"]);
    // A name that was changed into that of a file would be one.
    if name == "-" || Path::new(&name).exists() {
        name.push_str(":none");
    }
    if chance.once_in(3) {
        case.words = line(&["push", "HERE/p.wat"]);
    }
    case.words.push(name);
    case
}

/// The bytes are the three documents of a layout with a program: its index, manifest and config.
fn layout(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut parts = text.split('\x1e');
    let [index, manifest, config] = [(); 3].map(|()| parts.next().unwrap_or_default().to_owned());
    let program = PROGRAM.to_vec();
    // Mostly each document names the next one as it has become, so that the change is reached.
    let honest = !chance.once_in(4);
    let rename = |text: String, old: &[u8], new: &str| {
        let old = format!("sha256:{}", hex(&Sha256::digest(old)));
        if honest {
            text.replace(&old, &format!("sha256:{}", hex(&Sha256::digest(new))))
        } else {
            text
        }
    };
    let first = documents(&program);
    let manifest = rename(manifest, first[2].as_bytes(), &config);
    let index = rename(index, first[1].as_bytes(), &manifest);
    let blob = |bytes: &[u8]| {
        (
            format!("image/blobs/sha256/{}", hex(&Sha256::digest(bytes))),
            bytes.to_vec(),
        )
    };
    Case {
        files: vec![
            blob(&program),
            blob(manifest.as_bytes()),
            blob(config.as_bytes()),
            ("image/index.json".to_owned(), index.into_bytes()),
            (
                "image/oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
        ],
        words: line(&["inspect", "HERE/image"]),
        alone: false,
    }
}

/// The same from a registry.
fn registry(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let mut case = layout(chance, bytes);
    let index = case
        .files
        .iter()
        .find(|(name, _)| name == "image/index.json")
        .map(|(_, index)| index.clone())
        .unwrap_or_default();
    for (name, _) in &mut case.files {
        if let Some(hex) = name.strip_prefix("image/blobs/sha256/") {
            *name = format!("registry/blobs/sha256:{hex}");
        }
    }
    // The index's own entry is asked for as a manifest.
    let manifests: Vec<_> = case
        .files
        .iter()
        .filter_map(|(name, bytes)| {
            let digest = name.strip_prefix("registry/blobs/")?;
            Some((format!("registry/manifests/{digest}"), bytes.clone()))
        })
        .collect();
    case.files.extend(manifests);
    case.files.push(("registry/manifests/v1".to_owned(), index));
    case.words = line(&["inspect", &format!("{REGISTRY}/x:v1")]);
    case
}

/// A registry whose document is right, and the head of its answers is not.
fn registry_head(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let mut case = registry(chance, documents(PROGRAM).join("\x1e").into_bytes());
    case.files.push((HEAD.to_owned(), bytes));
    case
}

/// The bytes are a layer of files.
fn archive(chance: &mut Chance, bytes: Vec<u8>) -> Case {
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    let media = *chance.one_of(&[
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
    ]);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": { "Entrypoint": ["/bin/app.wasm"] },
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    })
    .to_string();
    let config_digest = format!("sha256:{}", hex(&Sha256::digest(&config)));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len() },
        "layers": [{ "mediaType": media, "digest": digest, "size": bytes.len() }],
    })
    .to_string();
    let manifest_digest = format!("sha256:{}", hex(&Sha256::digest(&manifest)));
    let index = json!({
        "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest.len(),
        }],
    });
    let blob = |bytes: Vec<u8>| {
        (
            format!("image/blobs/sha256/{}", hex(&Sha256::digest(&bytes))),
            bytes,
        )
    };
    Case {
        files: vec![
            blob(bytes),
            blob(config.into_bytes()),
            blob(manifest.into_bytes()),
            (
                "image/index.json".to_owned(),
                index.to_string().into_bytes(),
            ),
        ],
        words: line(&["inspect", "HERE/image"]),
        alone: false,
    }
}

/// One of a thread in two functions, as the engine writes it, and one without anything of ours.
fn core_dumps() -> Vec<Vec<u8>> {
    const PLAIN: &str = r#"
        (memory 2) (global i32 (i32.const 5)) (global (mut i64) (i64.const -1))
        (@custom "core" "\00\03web")
        (@custom "coremodules" "\01\00\04shop")
        (@custom "coreinstances" "\01\00\00\01\00\02\00\01")
        (@custom "corestack" "\00\04main\02\00\00\01\10\00\00\00\00\02\04\00\00")
        (data (i32.const 8) "abc") (data (i32.const 70000) "def")"#;
    const OURS: &str = r#"
        (@custom "sampan" "{\"reason\":\"trap\",\"functions\":[\"charge\",null]}")
        (@custom "sampan-left-out" "77")"#;
    let dump = |text: &str| wat::parse_str(format!("(module {text})")).expect("valid text");
    vec![dump(PLAIN), dump(&format!("{PLAIN}{OURS}"))]
}

fn core_dump(_: &mut Chance, bytes: Vec<u8>) -> Case {
    in_file("c.core.wasm", bytes, &["coredump", "HERE/c.core.wasm"])
}

fn run(_: &mut Chance, bytes: Vec<u8>) -> Case {
    Case {
        files: vec![("p.wasm".to_owned(), bytes)],
        // So that what was changed into an endless loop ends.
        words: line(&[
            "run",
            "HERE/p.wasm",
            "--set",
            "fuel=1000000",
            "--memory",
            "64Mi",
        ]),
        alone: true,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const PROGRAM: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// Index, manifest and config of the smallest image.
fn documents(program: &[u8]) -> [String; 3] {
    let layer = format!("sha256:{}", hex(&Sha256::digest(program)));
    let config = json!({
        "architecture": "wasm", "os": "wasip1", "layerDigests": [layer], "config": { "Env": ["A=1"], "Cmd": null },
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json",
            "digest": format!("sha256:{}", hex(&Sha256::digest(&config))), "size": config.len(),
        },
        "layers": [{ "mediaType": "application/wasm", "digest": layer, "size": program.len() }],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", hex(&Sha256::digest(&manifest))), "size": manifest.len(),
            "platform": { "os": "wasip1", "architecture": "wasm" },
        }],
    })
    .to_string();
    [index, manifest, config]
}

fn archives() -> Vec<Vec<u8>> {
    let mut plain = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        plain
            .append_data(&mut header, name, content)
            .expect("packed");
    };
    add("bin", tar::EntryType::Directory, b"");
    add("bin/app.wasm", tar::EntryType::Regular, PROGRAM);
    add(&"long/".repeat(30), tar::EntryType::Directory, b"");
    add("bin/.wh.gone", tar::EntryType::Regular, b"");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    plain
        .append_link(&mut link, "bin/link", "../bin/app.wasm")
        .expect("packed");
    let plain = plain.into_inner().expect("packed");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &plain).expect("packed");
    vec![plain, packed.finish().expect("packed")]
}

/// The guests of `test/guests` that are small, where they have been built, and some of our own.
fn programs() -> Vec<Vec<u8>> {
    const SMALL: u64 = 256 << 10;
    let mut all: Vec<Vec<u8>> = TEXTS
        .iter()
        .map(|text| wat::parse_str(text).expect("valid text"))
        .collect();
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("SAMPAN_CACHE").unwrap_or(format!("{home}/.cache/sampan"));
    let mut built: Vec<_> = std::fs::read_dir(Path::new(&cache).join("guests"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "wasm"))
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() < SMALL))
        .collect();
    // The same order everywhere, so that a seed is the same run.
    built.sort();
    all.extend(
        built
            .iter()
            .map(|path| std::fs::read(path).expect("read a guest")),
    );
    all
}

/// Programs that end by themselves; a guest that waits would hold everything up.
fn programs_that_end() -> Vec<Vec<u8>> {
    TEXTS
        .iter()
        .map(|text| wat::parse_str(text).expect("valid text"))
        .collect()
}

fn manifests() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = PODS.iter().map(|pod| pod.as_bytes().to_vec()).collect();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut files: Vec<_> = std::fs::read_dir(deploy)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    all.extend(
        files
            .iter()
            .map(|path| std::fs::read(path).expect("read a manifest")),
    );
    all
}

const TEXTS: [&str; 4] = [
    r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1 2) (table 3 funcref) (global (mut i32) (i32.const 5))
    (data (i32.const 16) "hello\n") (data (i32.const 0) "\10\00\00\00\06\00\00\00")
    (elem (i32.const 0) $f $f)
    (func $f (param i32) (result i32) (local.get 0))
    (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (call $exit (i32.const 7)))
    (func (export "other"))
    (@producers (language "Rust" "") (processed-by "rustc" "1.95")) (@custom ".debug_info" "12345"))"#,
    r#"(module (import "env" "nope" (func)) (memory i64 1) (tag (param i32)) (type $s (struct (field i32)))
    (func (export "_start") (local v128) (call 0)) (func (export "g") (result (ref null $s)) (ref.null $s)))"#,
    r#"(component
    (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string))))))
    (import "acme:one/a@1.0.0" (instance $a (export "r" (type (sub resource))) (export "f" (func))))
    (core module $m (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 0)))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $r (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $r)))"#,
    r#"(component (component $c (core module (func (export "f") (nop)))) (instance (instantiate $c))
    (import "wasi:http/types@0.2.0" (instance (export "fields" (type (sub resource)))))
    (type (record (field "a" u8))) (core type (func (param i32))))"#,
];

const SETTINGS: [&str; 8] = [
    "network=listen",
    "allow-outbound=example.org:443,10.0.0.0/8,[::1]:80,*.internal:*",
    "fuel=1000",
    "max-stack=1Mi",
    "request-timeout=1s",
    "http-listen=127.0.0.1:8080",
    "rootfs=ro",
    "max-request-body=none",
];

const NODE_FILES: [&str; 2] = [
    "runner = \"/opt/sampan-runner\"\n[store]\npath = \"/var/lib/sampan\"\nmax-bytes = 1000\n[compile]\nmax-seconds = 5\n\
     [defaults]\nnetwork = \"listen\"\nfuel = 5\n[ceilings]\nmax-stack = \"1Mi\"\n",
    "",
];

const HEADS: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.index.v1+json\r\nContent-Length: 400\r\n",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\",service=\"x\",scope=\"y\"\r\n\
     Content-Length: 0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDocker-Content-Digest: sha256:00\r\n",
];

const REFERENCES: [&str; 6] = [
    "127.0.0.1:1/hello:v1",
    "localhost:1/a/b/c@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "registry.example/hello:v1",
    "me/hello",
    "hello.wasm",
    "127.0.0.1:1/x:v1@sha256:00",
];

const PODS: [&str; 2] = [
    r#"apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello, LEVEL: debug}
binaryData: {blob: AAEC}
---
apiVersion: v1
kind: Pod
metadata:
  name: app
  labels: {app: x}
  annotations: {sampan.dev/network: listen, sampan.dev/rootfs: ro, sampan.dev/fuel: "1000"}
spec:
  runtimeClassName: sampan
  securityContext: {runAsUser: 1000, runAsGroup: 1000}
  volumes:
    - {name: settings, configMap: {name: settings, items: [{key: greeting, path: a/b}]}}
    - {name: scratch, emptyDir: {}}
    - {name: claim, persistentVolumeClaim: {claimName: data}}
    - {name: host, hostPath: {path: /srv, type: Directory}}
  initContainers:
    - {name: first, image: i, command: ["/#init"]}
  containers:
    - name: app
      image: registry.example/app:v1
      command: ["/", "$(LEVEL)"]
      args: ["$(LEVEL)", "$(NONE)", "$$(LEVEL)"]
      workingDir: /scratch
      envFrom: [{prefix: P_, configMapRef: {name: settings}}]
      env:
        - {name: LEVEL, valueFrom: {configMapKeyRef: {name: settings, key: LEVEL}}}
        - {name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: t}}}
        - {name: POD, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
      volumeMounts:
        - {name: settings, mountPath: /etc/settings}
        - {name: settings, mountPath: /etc/greeting, subPath: a/b}
        - {name: scratch, mountPath: /scratch}
        - {name: host, mountPath: /proc/x, readOnly: true}
      livenessProbe: {exec: {command: [sh, -c, "true"]}}
      resources: {limits: {memory: 64Mi, cpu: 500m, nvidia.com/gpu: 1}}
"#,
    r#"apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, annotations: {sampan.dev/fuel: "5"}}
  spec: {template: {spec: {shareProcessNamespace: true, containers: [{name: web, image: i}]}}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {generateName: c-}
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: job, image: i}]}}}}}
- {kind: Service, spec: {ports: []}}
- {kind: Secret, metadata: {name: s}, stringData: {a: b}, data: {c: ZA==}}
"#,
];
